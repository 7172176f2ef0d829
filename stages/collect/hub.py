"""Hugging Face data sets by id and commit, or a folder laid out like one; streamed, never downloaded whole."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec

from stages.collect.folder import caption_column
from stages.collect.found import Found
from stages.collect.params import Hub
from stages.collect.parquet import image_column
from stages.core.errors import StageError
from stages.core.pairs import Failure

SPLITS = {"train": "train", **dict.fromkeys(("validation", "valid", "val", "dev", "test"), "validation")}


def read_hub(source: Hub, sources: Path) -> Iterator[Found | Failure]:
    """Every row of the splits in the data set's order; one without picture is a failure `no_bytes`.

    Class labels become their names. Where more than one split is read, they are the pairs' own; else `clean` draws.
    Raises StageError if the data set can't be opened, or has no picture or caption column.
    """
    import datasets  # here: it takes a second and a half that other sources don't need

    datasets.disable_progress_bars()
    local = source.folder(sources)
    for split in source.splits:
        stream = _open(source, local, split)
        named = Path(source.dataset)
        pictures = image_column(source.image_column, named, list(stream.features))
        texts = None
        if source.caption_column is not None:
            texts = caption_column(source.caption_column, named, list(stream.features))
        labels = {name: kind for name, kind in stream.features.items() if isinstance(kind, datasets.ClassLabel)}
        told = SPLITS.get(split) if len(source.splits) > 1 else None
        for number, row in enumerate(stream.cast_column(pictures, datasets.Image(decode=False))):
            path, image = f"{split}/{number:09d}", row.pop(pictures) or {}
            captions = row.pop(texts) if texts else []
            extra = {**row, **{name: kind.int2str(row[name]) for name, kind in labels.items() if (row[name] or 0) >= 0}}
            data = _bytes(source, local, path, image)
            if isinstance(data, Failure):
                yield data
                continue
            listed = captions if isinstance(captions, list) else [captions]
            url, terms = (value if isinstance(value := extra.get(name), str) else None for name in ("url", "license"))
            captions = [each for each in listed if isinstance(each, str)]
            yield Found(data, path, captions, extra, url=url, license=terms, split=told)


def _open(source: Hub, local: Path | None, split: str) -> Any:
    import datasets

    name, _, commit = source.dataset.partition("@")
    where = f"collect.sources, {source.name}, {source.dataset}"
    try:
        stream = datasets.load_dataset(
            str(local or name), source.config or None, split=split, revision=commit or None, streaming=True
        )
    except (OSError, ValueError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise StageError(where, f"{split}: {said}", "check id, commit and network") from None
    if not stream.features:
        raise StageError(where, f"{split} says nothing of its columns", "use kind urls for tables of links")
    return stream


def _bytes(source: Hub, local: Path | None, path: str, image: dict[str, Any]) -> bytes | Failure:
    """The picture's own bytes, or those of the file that it names, if that is part of the data set."""
    data, named = image.get("bytes"), image.get("path")
    if isinstance(data, bytes):
        return data
    if not isinstance(named, str):
        return Failure(source.name, path, "no_bytes")
    file = named.rpartition("::")[2]  # zip://a.png::/folder/pictures.zip lies inside an archive
    remote = f"hf://datasets/{source.dataset}/"
    if not (Path(file).resolve().is_relative_to(local.resolve()) if local else file.startswith(remote)):
        return Failure(source.name, path, "outside_folder", file)
    try:
        with fsspec.open(named, "rb") as opened:
            content: bytes = opened.read()
    except OSError as error:
        return Failure(source.name, path, "unreadable_file", error.strerror or "")
    return content
