"""Tables of links: csv, tsv, jsonl and parquet, a row at a time."""

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stages.collect.folder import CAPTION_COLUMNS
from stages.collect.params import Urls
from stages.core.errors import StageError

URL_COLUMNS = ("url", "image_url", "img_url", "link")
ROWS = 1024  # of a Parquet table in memory at once


@dataclass(frozen=True)
class Row:
    """A row of a table: path is table:number, from 0; code says why it can't be read."""

    path: str
    url: str = ""
    captions: list[str] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)
    code: str = ""


def read_tables(source: Urls, sources: Path) -> Iterator[Row]:
    """Every row of every table in order of names and rows.

    What ends a table early is a last row `unreadable_table`, a line of jsonl that is no object a row `bad_row`.
    Raises StageError if there are no tables, or one has no such columns.
    """
    root, tables = source.tables(sources)
    for path in tables:
        name = path.relative_to(root).as_posix()
        if not path.resolve().is_relative_to(sources.resolve()):
            yield Row(name, code="outside_folder")
            continue
        try:
            columns: tuple[str, str | None] | None = None
            for number, values in enumerate(_values(path)):
                if values is None:
                    yield Row(f"{name}:{number}", code="bad_row")
                    continue
                if columns is None:
                    columns = _columns(source, path, values)
                yield _row(f"{name}:{number}", values, *columns)
        except (pa.ArrowException, csv.Error, OSError, EOFError):
            yield Row(name, code="unreadable_table")


def _values(path: Path) -> Iterator[dict[str, Any] | None]:
    """The rows as dictionaries; None for one that is none."""
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        with pq.ParquetFile(path) as file:
            named = [column.name for column in file.schema_arrow if not pa.types.is_binary(column.type)]
            for batch in file.iter_batches(batch_size=ROWS, columns=named):
                yield from batch.to_pylist()
        return
    with path.open(encoding="utf-8-sig", errors="replace", newline="" if suffix != ".jsonl" else "\n") as file:
        if suffix == ".jsonl":
            yield from (_object(line) for line in file if line.strip())
        else:
            yield from csv.DictReader(file, delimiter="\t" if suffix == ".tsv" else ",", restkey="")


def _object(line: str) -> dict[str, Any] | None:
    try:
        values = json.loads(line)
        if "\\u" in line:
            json.dumps(values, ensure_ascii=False).encode()  # half of a surrogate pair is no text
    except (ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) else None


def _columns(source: Urls, path: Path, values: Iterable[str]) -> tuple[str, str | None]:
    columns = list(values)
    urls = find_column("URL", "url_column", [source.url_column] if source.url_column else URL_COLUMNS, path, columns)
    if source.caption_column is None:
        return urls, None
    wanted = [source.caption_column] if source.caption_column else CAPTION_COLUMNS
    return urls, find_column("caption", "caption_column", wanted, path, columns)


def find_column(what: str, knob: str, wanted: Iterable[str], table: Path, columns: list[str]) -> str:
    """The first column that is wanted, in any case. Raises StageError if there is none."""
    by_name = {column.lower(): column for column in reversed(columns)}
    for name in wanted:
        if name in columns or name.lower() in by_name:
            return name if name in columns else by_name[name.lower()]
    names = ", ".join(column for column in columns if column)
    raise StageError(str(table), f"has no {what} column ({' or '.join(wanted)})", f"set {knob}; it has {names}")


def _row(path: str, values: dict[str, Any], url_column: str, caption_column: str | None) -> Row:
    values.pop("", None)  # fields of csv beyond the header
    url = values.pop(url_column, None)
    text = values.pop(caption_column, None) if caption_column else None
    captions = [each for each in (text if isinstance(text, list) else [text]) if isinstance(each, str)]
    return Row(path, url.strip() if isinstance(url, str) else "", captions, values)
