"""WebDataset archives: tar files, as img2dataset writes them, or zips; members with one key are one pair.

A key is a member's path up to the first dot of its file name; `a/000001.jpg`, `a/000001.txt` and
`a/000001.json` belong together and lie side by side (github.com/webdataset/webdataset, "The WebDataset
Format"). Archives are read as streams, and no member is ever written to disk by its own name.
"""

import json
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stages.collect.files import PICTURES
from stages.collect.found import Found
from stages.collect.params import WebDataset
from stages.core.errors import StageError
from stages.core.pairs import Failure

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip")
CAPTIONS = (".txt", ".caption")


@dataclass(frozen=True)
class Member:
    """One file of an archive; code says why it has no data."""

    name: str
    data: bytes = field(default=b"", repr=False)
    code: str = ""

    @property
    def key(self) -> str:
        folder, _, file = self.name.rpartition("/")
        return f"{folder}/{file.partition('.')[0]}"

    @property
    def suffix(self) -> str:
        return f".{self.name.rpartition('/')[2].partition('.')[2].lower()}"


def read_webdataset(source: WebDataset, sources: Path) -> Iterator[Found | Failure]:
    """The pairs of every archive in order of names, each archive in its own order.

    Where img2dataset's table lies beside an archive (00000.parquet), its rows that were not downloaded are
    failures `not_downloaded`. An archive that ends early is a failure `truncated_archive`, what was read
    before stays. Raises StageError if there are no archives.
    """
    root = source.root(sources)
    archives = sorted(path for path in root.rglob("*") if path.name.lower().endswith(ARCHIVES) and path.is_file())
    if not archives:
        raise StageError(str(root), f"has no archives ({', '.join(ARCHIVES)})", "put them there")
    for path in archives:
        name = path.relative_to(root).as_posix()
        if not path.resolve().is_relative_to(root.resolve()):
            yield Failure(source.name, name, "outside_folder", "a link that leaves the folder")
            continue
        try:
            for _, members in groupby(members_of(path, source.most_bytes), key=lambda member: member.key):
                yield from _pair(source, name, list(members))
        except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError):
            yield Failure(source.name, name, "truncated_archive", "the rest of it can't be read")
        yield from _not_downloaded(source, name, path.with_suffix(".parquet"))


def members_of(path: Path, most_bytes: int) -> Iterator[Member]:
    """The files in an archive, in its order; larger ones than `most_bytes`, and what is no file, without data."""
    if path.suffix.lower() == ".zip":
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if not info.is_dir():
                    with archive.open(info) as stream:
                        yield _member(info.filename, stream.read(most_bytes + 1), most_bytes)
        return
    with tarfile.open(path, "r|*") as archive:
        for entry in archive:
            if entry.isfile() and entry.size <= most_bytes:
                content = archive.extractfile(entry)
                yield _member(entry.name, content.read() if content else b"", most_bytes)
            elif not entry.isdir():
                yield Member(entry.name, code="too_large" if entry.isfile() else "no_file")


def _member(name: str, data: bytes, most_bytes: int) -> Member:
    return Member(name, data) if len(data) <= most_bytes else Member(name, code="too_large")


def _pair(source: WebDataset, archive: str, members: list[Member]) -> Iterator[Found | Failure]:
    """The pair of one key; a failure for every picture beyond the first, every odd file, and a key without picture."""
    captions: list[str] = []
    extra: dict[str, Any] = {}
    pictures, failures = [], []
    for member in members:
        path = f"{archive}/{member.name}"
        if member.code:
            failures.append(Failure(source.name, path, member.code))
        elif member.suffix in PICTURES:
            pictures.append(member)
        elif member.suffix in CAPTIONS:
            text = member.data.decode("utf-8-sig", errors="replace")
            captions += [line.strip() for line in text.splitlines() if line.strip()]
        elif member.suffix == ".json" and (fields := _fields(member.data)) is not None:
            extra.update(fields)
        else:
            failures.append(Failure(source.name, path, "unknown_kind", "no picture, caption or JSON object"))
    failures += [
        Failure(source.name, f"{archive}/{member.name}", "second_picture", pictures[0].name) for member in pictures[1:]
    ]
    if pictures:
        said = extra.pop("caption", None)
        if not captions and isinstance(said, str):
            captions = [said]
        url, terms = (value if isinstance(value := extra.get(name), str) else None for name in ("url", "license"))
        yield Found(pictures[0].data, f"{archive}/{pictures[0].name}", captions, extra, url=url, license=terms)
    elif not failures:
        failures.append(Failure(source.name, f"{archive}/{members[0].name}", "no_picture", "its key has none"))
    yield from failures


def _fields(data: bytes) -> dict[str, Any] | None:
    try:
        values = json.loads(data)
    except ValueError:
        return None
    return values if isinstance(values, dict) else None


def _not_downloaded(source: WebDataset, archive: str, table: Path) -> Iterator[Failure]:
    """What img2dataset could not fetch is said in its table only."""
    if not table.is_file():
        return
    try:
        with pq.ParquetFile(table) as file:
            if not {"key", "status", "url"} <= set(file.schema_arrow.names):
                return
            for batch in file.iter_batches(columns=["key", "status", "url"]):
                for row in batch.to_pylist():
                    if row["status"] != "success":
                        yield Failure(source.name, f"{archive}/{row['key']}", "not_downloaded", str(row["url"]))
    except (pa.ArrowInvalid, OSError):
        yield Failure(source.name, f"{archive} (its table)", "unreadable_table")
