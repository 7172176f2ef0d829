"""A person's own folder: pictures with sidecar captions, or with one metadata table."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from stages.collect.params import Folder
from stages.core.errors import StageError
from stages.core.pairs import Failure, Pair

PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"}
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
CAPTION_COLUMNS = ("text", "caption", "prompt")


def read_folder(source: Folder, sources: Path) -> Iterator[Pair | Failure]:
    """Every picture below the folder, in order of relative paths; rows that name none are failures.

    Raises StageError if the folder is missing, leaves `sources`, has no pictures or two metadata files.
    """
    root = source.root(sources)
    files = sorted(path for path in root.rglob("*") if path.suffix.lower() in PICTURES and path.is_file())
    if not files:
        raise StageError(str(root), "has no pictures", f"put some there ({', '.join(sorted(PICTURES))})")
    found = sorted(path for path in root.rglob("metadata.*") if path.name in METADATA)
    if source.captions == "metadata" and not found:
        raise StageError(str(root), "has no metadata file", f"add {', '.join(METADATA[:-1])} or {METADATA[-1]}")
    if found and source.captions != "sidecar":
        yield from _read_with_metadata(source, root, files, found)
    else:
        for path in files:
            yield _read(source, root, path, _sidecar_captions(path), {})


def _read_with_metadata(source: Folder, root: Path, files: list[Path], found: list[Path]) -> Iterator[Pair | Failure]:
    """Rows by picture, then what one side lacks on the other."""
    rows: dict[Path, dict[str, Any]] = {}
    missing: list[Failure] = []
    known = set(files)
    for table_path in found:
        table = _read_table(table_path)
        if "file_name" not in table.columns:
            raise StageError(str(table_path), "has no column file_name", "name each row's picture in it")
        column = _caption_column(source, table_path, list(table.columns))
        for row in table.to_dict("records"):
            path = table_path.parent / str(row.pop("file_name"))
            if not path.resolve().is_relative_to(root.resolve()):
                missing.append(Failure(source.name, str(path), "outside_folder"))
            elif path not in known:
                missing.append(Failure(source.name, path.relative_to(root).as_posix(), "missing_file"))
            else:
                kept = rows.setdefault(path, {"captions": []})
                caption = row.pop(column)
                kept["captions"] += [str(caption)] if isinstance(caption, str) and caption.strip() else []
                kept.setdefault("extra", {str(key): value for key, value in row.items()})
    for path in files:
        if path in rows:
            yield _read(source, root, path, rows[path]["captions"], rows[path]["extra"])
        else:
            yield Failure(source.name, path.relative_to(root).as_posix(), "no_caption_row", "no metadata row names it")
    yield from sorted(missing, key=lambda failure: failure.path)


def _read_table(path: Path) -> pd.DataFrame:
    try:
        if path.suffix == ".csv":
            return pd.read_csv(path, dtype=str, keep_default_na=False)
        if path.suffix == ".jsonl":
            lines = path.read_text(encoding="utf-8-sig").splitlines()
            return pd.DataFrame([json.loads(line) for line in lines if line.strip()], dtype=object)
        return pd.read_parquet(path)
    except (ValueError, OSError) as error:
        raise StageError(str(path), f"can't be read ({str(error).splitlines()[0]})", "mend the file") from None


def _caption_column(source: Folder, table: Path, columns: list[str]) -> str:
    wanted = [source.caption_column] if source.caption_column else list(CAPTION_COLUMNS)
    for name in wanted:
        if name in columns:
            return name
    raise StageError(
        str(table), f"has no caption column ({' or '.join(wanted)})", f"set caption_column; it has {', '.join(columns)}"
    )


def _sidecar_captions(path: Path) -> list[str]:
    """The non-empty lines of photo.txt or photo.caption, each one caption; none if there is no such file."""
    for suffix in (".txt", ".caption"):
        sidecar = path.with_suffix(suffix)
        if sidecar.is_file():
            text = sidecar.read_bytes().decode("utf-8-sig", errors="replace")
            return [line.strip() for line in text.splitlines() if line.strip()]
    return []


def _read(source: Folder, root: Path, path: Path, captions: list[str], extra: dict[str, Any]) -> Pair | Failure:
    name = path.relative_to(root).as_posix()
    if not path.resolve().is_relative_to(root.resolve()):
        return Failure(source.name, name, "outside_folder", "a link that leaves the folder")
    try:
        data = path.read_bytes()
    except OSError as error:
        return Failure(source.name, name, "unreadable_file", error.strerror or "")
    if not data:
        return Failure(source.name, name, "empty_file")
    split = extra.get("split")
    return Pair(
        key=hashlib.sha256(data).hexdigest(),
        data=data,
        path=name,
        captions=captions,
        source=source.name,
        license=source.license,
        attribution=source.attribution,
        split=split if split in ("train", "validation") else None,
        extra=json.dumps(extra, sort_keys=True, default=str),
    )
