"""Parquet tables with the pictures in them: Hugging Face's struct of bytes and path, or a column of bytes.

img2dataset's own (columns jpg, txt, status) are read too. Path names in a struct are never followed.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stages.collect.folder import caption_column
from stages.collect.found import Found
from stages.collect.params import ParquetTables
from stages.core.errors import StageError
from stages.core.pairs import Failure

IMAGE_COLUMNS = ("image", "jpg", "png", "webp", "img")
ROWS = 64  # in memory at once


def read_parquet(source: ParquetTables, sources: Path) -> Iterator[Found | Failure]:
    """Every row of every table in order of names and rows; one without bytes is a failure `no_bytes`.

    Raises StageError if there are no tables, or one has no picture or caption column.
    """
    root = source.root(sources)
    tables = sorted(path for path in root.rglob("*.parquet") if path.is_file())
    if not tables:
        raise StageError(str(root), "has no .parquet tables", "put them there")
    for path in tables:
        name = path.relative_to(root).as_posix()
        if not path.resolve().is_relative_to(root.resolve()):
            yield Failure(source.name, name, "outside_folder", "a link that leaves the folder")
            continue
        try:
            with pq.ParquetFile(path) as file:
                yield from _rows(source, name, path, file)
        except (pa.ArrowException, OSError):
            yield Failure(source.name, name, "unreadable_table", "the rest of it can't be read")


def _rows(source: ParquetTables, name: str, path: Path, file: pq.ParquetFile) -> Iterator[Found | Failure]:
    schema = file.schema_arrow
    pictures = image_column(source.image_column, path, schema.names)
    texts = None if source.caption_column is None else caption_column(source.caption_column, path, schema.names)
    carried = [each.name for each in schema if not pa.types.is_binary(each.type) and each.name not in (pictures, texts)]
    number = 0
    for batch in file.iter_batches(batch_size=ROWS, columns=[pictures, *([texts] if texts else []), *carried]):
        for row in batch.to_pylist():
            yield _row(source, f"{name}:{number}", row.pop(pictures), row.pop(texts, None), row)
            number += 1


def image_column(named: str, table: Path, columns: list[str]) -> str:
    """The column with the pictures: the named one, or the usual ones. Raises StageError if there is none."""
    wanted = [named] if named else list(IMAGE_COLUMNS)
    for name in wanted:
        if name in columns:
            return name
    raise StageError(
        str(table), f"has no picture column ({' or '.join(wanted)})", f"set image_column; it has {', '.join(columns)}"
    )


def _row(source: ParquetTables, path: str, image: Any, text: Any, extra: dict[str, Any]) -> Found | Failure:
    data = image.get("bytes") if isinstance(image, dict) else image
    if not isinstance(data, bytes):
        failed = extra.get("status") not in (None, "success")
        return Failure(source.name, path, "not_downloaded" if failed else "no_bytes", str(extra.get("url") or ""))
    texts = text if isinstance(text, list) else [text]
    url, terms = (value if isinstance(value := extra.get(name), str) else None for name in ("url", "license"))
    return Found(data, path, [each for each in texts if isinstance(each, str)], extra, url=url, license=terms)
