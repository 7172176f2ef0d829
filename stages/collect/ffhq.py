"""Flickr-Faces-HQ (Karras et al. 2019): ffhq-dataset-v2.json, and the pictures where it says.

"0" to "69999", each with category (training or validation), metadata (photo_url, photo_title, author, license,
license_url, ...) and image, thumbnail and in_the_wild (file_path, file_md5, ...).
"""

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from stages.collect.files import first_of, name_of, read_file, refuse_no_file, unlisted
from stages.collect.found import Found
from stages.collect.params import Ffhq
from stages.core.errors import StageError
from stages.core.pairs import Failure

LIST = "ffhq-dataset-v2.json"
PARTS = {"images1024x1024": "image", "thumbnails128x128": "thumbnail", "in-the-wild-images": "in_the_wild"}
SPLITS = {"training": "train", "validation": "validation"}
CARRIED = ("photo_title", "author", "country", "license_url", "date_uploaded")
FIRST, NEXT = (re.compile(rf'\s*{sign}\s*"(\w*)"\s*:\s*(?={{)') for sign in (r"\{", ","))
END = re.compile(r"\s*\}\s*")
CHUNK, LARGEST = 2**20, 2**24  # characters; a real entry has 3,600
DO = f"put {LIST} of github.com/NVlabs/ffhq-dataset there"


def read_ffhq(source: Ffhq, sources: Path) -> Iterator[Found | Failure]:
    """Every picture of the list in its order; then files in the folder that it doesn't name.

    The list, 255 MB, is read entry by entry: 10 s, and no memory to speak of. An entry that names no file is a
    failure `malformed_entry`. Attribution is title, author and the licence's address.
    Raises StageError if the list is missing or no JSON.
    """
    root = source.root(sources)
    listed: set[str] = set()
    for number, entry in _entries(root):
        about, part = entry.get("metadata"), entry.get(PARTS[source.folder])
        part = part if isinstance(part, dict) else {}
        file = part.get("file_path")
        if not isinstance(about, dict) or not isinstance(file, str):
            yield Failure(source.name, f"{LIST}:{number}", "malformed_entry")
            continue
        path = root / file
        name = name_of(root, path)
        if name in listed:
            yield Failure(source.name, f"{LIST}:{number}", "listed_twice", file)
            continue
        listed.add(name)
        data = read_file(source.name, root, path)
        if isinstance(data, bytes) and source.verify_hash:
            wanted, is_now = part.get("file_md5"), hashlib.md5(data, usedforsecurity=False).hexdigest()
            if is_now != wanted:
                data = Failure(source.name, name, "wrong_hash", f"{is_now}, not {wanted}")
        if isinstance(data, Failure):
            yield data
            continue
        said = {key: value for key, value in about.items() if isinstance(value, str) and value.strip()}
        credit = [said[key] for key in ("photo_title", "author", "license_url") if key in said]
        yield Found(
            data,
            name,
            captions=[],
            extra={key: said[key] for key in CARRIED if key in said},
            url=said.get("photo_url"),
            license=said.get("license"),
            attribution=", ".join(credit) or None,
            split=SPLITS.get(str(entry.get("category"))) if source.official_split else None,
        )
    yield from unlisted(source.name, root, first_of(root, source.folder), listed)


def _entries(root: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The list's entries, one at a time. Raises StageError where it can't be read."""
    path = root / LIST
    refuse_no_file(root, path, DO)
    try:
        with path.open(encoding="utf-8") as file:
            yield from entries_of(file)
    except (OSError, ValueError, RecursionError) as error:
        raise StageError(str(path), f"can't be read ({error})", DO) from None


def entries_of(file: TextIO) -> Iterator[tuple[str, dict[str, Any]]]:
    """Key and value of each member of a JSON object whose values are objects; memory holds CHUNK and one value.

    Raises ValueError where it is none.
    """
    decode, text, key, more = json.JSONDecoder().raw_decode, "", FIRST, True
    while more:
        chunk = file.read(CHUNK)
        more, text, at = bool(chunk), text + chunk, 0
        while found := key.match(text, at):
            try:
                value, at = decode(text, found.end())
            except ValueError:
                if not more or len(text) - at > LARGEST:
                    raise
                break  # its end is still to be read
            yield found[1], value
            key = NEXT
        text = text[at:]
        if len(text) > LARGEST:
            raise ValueError("no entry begins where one should")
    if not END.fullmatch(text) or key is FIRST:
        raise ValueError("it has no entries, or its end is missing")
