"""Pictures in a folder, laid out in one of the ways that people and other programs use."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from stages.collect.files import PICTURES, inside, read_file, walk
from stages.collect.found import Found
from stages.collect.params import Folder
from stages.core.errors import StageError
from stages.core.pairs import Failure

ENDINGS = sorted({*PICTURES, *map(str.upper, PICTURES)})  # file systems tell .JPG from .jpg
SIDECARS = (".txt", ".caption")
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
CAPTION_COLUMNS = ("text", "caption", "prompt", "txt")
KOHYA = re.compile(r"([1-9]\d*)_(.+)")  # repeats, then the words that name instance and class


def read_folder(source: Folder, sources: Path) -> Iterator[Found | Failure]:
    """Every file below the folder, in order of relative paths; then the metadata rows that name no picture.

    A file that is no picture, caption or metadata is a failure `unknown_kind`: a picture in a format that
    nothing here reads must not vanish; nor must a caption without a picture (`no_picture`) or what lies behind
    a link to another folder (`linked_folder`). Hidden files and DVC's own are left alone.

    Raises StageError if the folder is missing, leaves `sources`, has no pictures
    or two metadata files side by side.
    """
    root = source.root(sources)
    tables, layout = survey(root)
    layout = layout if source.layout == "auto" else source.layout
    print(f"{source.name}: layout {layout}")
    rows: dict[str, dict[str, Any]] = {}
    missing: list[Failure] = []
    if layout == "metadata":
        if not tables:
            raise StageError(str(root), "has no metadata file", f"add {', '.join(METADATA[:-1])} or {METADATA[-1]}")
        rows, missing = _rows_by_picture(source, root, tables)
    for path in walk(root):
        name, suffix, row = path.relative_to(root).as_posix(), path.suffix.lower(), rows.pop(_plain(path), None)
        if path.is_dir():
            yield Failure(source.name, name, "linked_folder", "links to folders are not followed")
        elif suffix in PICTURES and layout == "metadata":
            yield _read(source, root, path, **row) if row else no_caption_row(source, name)
        elif suffix in PICTURES:
            yield _read(source, root, path, **_said_by_place(layout, root, path))
        elif suffix in SIDECARS:
            if row or (layout != "metadata" and not any(path.with_suffix(end).exists() for end in ENDINGS)):
                yield Failure(source.name, name, "no_picture", "a caption without a picture")
        elif path not in tables and suffix != ".dvc":
            yield Failure(source.name, name, "unknown_kind", "no picture that is known here")
    hidden = [os.path.relpath(path, root) for path in rows]
    missing += [Failure(source.name, name, "hidden_file", "its name begins with a dot") for name in hidden]
    yield from sorted(missing, key=lambda failure: failure.path)


def survey(root: Path) -> tuple[list[Path], str]:
    """The metadata tables, and the layout that the files show.

    metadata where there are tables, else kohya if all pictures lie in such folders, else sidecar if there is a
    caption or a picture in the root, else classes. Raises StageError as `read_folder` says.
    """
    tables: list[Path] = []
    pictures = sidecars = at_root = others = 0
    for path in walk(root):
        suffix = path.suffix.lower()
        if path.name in METADATA:
            tables.append(path)
        elif suffix in PICTURES:
            pictures += 1
            at_root += path.parent == root
            others += path.parent == root or not KOHYA.fullmatch(path.parent.name)
        sidecars += suffix in SIDECARS
    if not pictures:
        raise StageError(str(root), "has no pictures", f"put some there ({', '.join(sorted(PICTURES))})")
    if len({path.parent for path in tables}) < len(tables):
        raise StageError(str(root), "has two metadata files in one folder", "leave one of them")
    if tables:
        return tables, "metadata"
    return tables, "sidecar" if others and (sidecars or at_root) else "classes" if others else "kohya"


def no_caption_row(source: Folder, name: str) -> Failure:
    """A picture that no metadata row names must not vanish."""
    return Failure(source.name, name, "no_caption_row", "no metadata row names it")


def _said_by_place(layout: str, root: Path, path: Path) -> dict[str, Any]:
    """Captions, fields and repeats that folder and sidecar tell of a picture."""
    words = path.parent.name.replace("_", " ") if path.parent != root else ""
    if layout == "classes":
        return {"captions": [words], "extra": {"class": words}}
    if layout == "kohya" and (named := KOHYA.fullmatch(path.parent.name)):
        fields = {"captions": _sidecar_captions(root, path), "extra": {"class": named[2].replace("_", " ")}}
        return {**fields, "repeats": int(named[1])}
    return {"captions": _sidecar_captions(root, path), "extra": {}}


def _plain(path: Path) -> str:
    """One name for a file, however it is written; links are not followed."""
    return os.path.abspath(path)  # noqa: PTH100 - Path.absolute keeps `..`, Path.resolve follows links


def _rows_by_picture(source: Folder, root: Path, tables: list[Path]) -> tuple[dict[str, dict[str, Any]], list[Failure]]:
    """captions and extra columns by picture, and the rows that name none."""
    rows: dict[str, dict[str, Any]] = {}
    missing: list[Failure] = []
    for table_path in tables:
        table = _read_table(root, table_path)
        if "file_name" not in table.columns:
            raise StageError(str(table_path), "has no column file_name", "name each row's picture in it")
        column = caption_column(source.caption_column, table_path, list(table.columns))
        for row in table.to_dict("records"):
            name = str(row.pop("file_name"))
            path = table_path.parent / name
            caption = row.pop(column)
            if not inside(root, path):
                missing.append(Failure(source.name, name, "outside_folder"))
            elif not path.is_file():
                missing.append(Failure(source.name, name, "missing_file"))
            else:
                kept = rows.setdefault(_plain(path), {"captions": [], "extra": row})
                kept["captions"] += [caption] if isinstance(caption, str) and caption.strip() else []
    return rows, missing


def _read_table(root: Path, path: Path) -> pd.DataFrame:
    if not inside(root, path):
        raise StageError(str(path), "is a link that leaves the folder", "copy the file")
    try:
        if path.suffix == ".csv":
            return pd.read_csv(path, dtype=str, keep_default_na=False)
        if path.suffix == ".jsonl":
            lines = path.read_text(encoding="utf-8-sig").split("\n")
            return pd.DataFrame([json.loads(line) for line in lines if line.strip()], dtype=object)
        return pd.read_parquet(path)
    except (ValueError, OSError) as error:
        raise StageError(str(path), f"can't be read ({str(error).splitlines()[0]})", "mend the file") from None


def caption_column(named: str, table: Path, columns: list[str]) -> str:
    """The column with the captions: the named one, or the usual ones. Raises StageError if there is none."""
    wanted = [named] if named else list(CAPTION_COLUMNS)
    for name in wanted:
        if name in columns:
            return name
    raise StageError(
        str(table), f"has no caption column ({' or '.join(wanted)})", f"set caption_column; it has {', '.join(columns)}"
    )


def _sidecar_captions(root: Path, path: Path) -> list[str]:
    """The non-empty lines of photo.txt or photo.caption, each one caption; none if there is no such file."""
    for suffix in SIDECARS:
        sidecar = path.with_suffix(suffix)
        if sidecar.is_file() and inside(root, sidecar):
            text = sidecar.read_bytes().decode("utf-8-sig", errors="replace")
            return [line.strip() for line in text.splitlines() if line.strip()]
    return []


def _read(
    source: Folder, root: Path, path: Path, captions: list[str], extra: dict[str, Any], repeats: int = 1
) -> Found | Failure:
    data = read_file(source.name, root, path)
    if isinstance(data, Failure):
        return data
    split = extra.get("split")
    told = split if split in ("train", "validation") else None
    return Found(data, path.relative_to(root).as_posix(), captions, extra, split=told, repeats=repeats)
