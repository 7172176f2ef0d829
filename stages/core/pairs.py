"""Image-text pairs on disk: Parquet shards whose bounds follow the content.

A shard ends after a row whose key says so (its first 32 bits are a multiple of
`ROWS`), so membership is a function of the rows alone: a new row changes the
shard it falls in and no other.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

ROWS = 512  # rows a shard on average
GROUP = 128  # pictures a row group
MOST_BYTES = 512 * 2**20  # Arrow offsets end at 2 GiB; a batch of the largest pictures stays below
FAILURES = "failures.parquet"
SOURCES = "sources.json"  # the sources' names in the order they are listed in params.yaml

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])

RAW = pa.schema(
    [
        ("key", pa.string()),
        ("image", IMAGE),
        ("captions", pa.list_(pa.string())),
        ("source", pa.string()),
        ("role", pa.string()),
        ("repeats", pa.int64()),
        ("url", pa.string()),
        ("license", pa.string()),
        ("attribution", pa.string()),
        ("group", pa.string()),
        ("split", pa.string()),
        ("extra", pa.string()),
    ]
)

CAPTIONS = pa.schema([("key", pa.string()), ("caption", pa.string())])  # written by a model where a source has none

FAILURE = pa.schema([("source", pa.string()), ("path", pa.string()), ("code", pa.string()), ("detail", pa.string())])


@dataclass(frozen=True)
class Pair:
    """A picture as its source has it, with what the source says of it.

    key: sha256 of `data`, hex. captions: may be empty. role: train, regularisation or benchmark.
    repeats: how often an epoch shows it.
    group: what must stay on one side of a split. split: train, validation or None.
    extra: further columns of the source, JSON.
    """

    key: str
    data: bytes
    path: str
    captions: list[str]
    source: str
    role: str = "train"
    repeats: int = 1
    url: str | None = None
    license: str | None = None
    attribution: str | None = None
    group: str | None = None
    split: str | None = None
    extra: str = "{}"

    def row(self) -> dict[str, Any]:
        row = asdict(self)
        row["image"] = {"bytes": row.pop("data"), "path": row.pop("path")}
        return row


@dataclass(frozen=True)
class Failure:
    """A picture that was asked for and is no row: its path, a code, and what may help to mend it."""

    source: str
    path: str
    code: str
    detail: str = ""


@dataclass
class ShardWriter:
    """Writes rows with a `key` and an `image` to numbered shards in `folder`; memory holds a row group."""

    folder: Path
    schema: pa.Schema
    written: int = 0
    _rows: list[dict[str, Any]] = field(default_factory=list)
    _bytes: int = 0
    _shard: int = 0
    _file: pq.ParquetWriter | None = None

    def add(self, row: dict[str, Any], size: int) -> None:
        self._rows.append(row)
        self._bytes += size
        self.written += 1
        if int(str(row["key"])[:8], 16) % ROWS == 0 or self._bytes >= MOST_BYTES:
            self.close()
        elif len(self._rows) == GROUP:
            self._flush()

    def close(self) -> None:
        """End the shard, if one was begun."""
        self._flush()
        if self._file:
            self._file.close()
            self._file, self._bytes = None, 0
            self._shard += 1

    def _flush(self) -> None:
        if self._rows and not self._file:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._file = _writer(self.folder / f"{self._shard:05d}.parquet", self.schema)
        if self._rows and self._file:
            self._file.write_table(pa.Table.from_pylist(self._rows, schema=self.schema))
            self._rows = []


def write_table(table: pa.Table, path: Path) -> None:
    """Write a whole table as shards are written."""
    with _writer(path, table.schema) as file:
        file.write_table(table, row_group_size=GROUP if "image" in table.schema.names else 65_536)


def write_rows(rows: Iterable[tuple[dict[str, Any], int]], schema: pa.Schema, path: Path) -> None:
    """Write rows, each beside its size in bytes, as shards are written; one row group in memory. No rows, no file."""
    groups = _groups(rows)
    first = next(groups, None)
    if first is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with _writer(path, schema) as file:
        for group in chain([first], groups):
            file.write_table(pa.Table.from_pylist(group, schema=schema))


def _groups(rows: Iterable[tuple[dict[str, Any], int]]) -> Iterator[list[dict[str, Any]]]:
    """Row groups: GROUP rows, or fewer where they reach MOST_BYTES."""
    group: list[dict[str, Any]] = []
    held = 0
    for row, size in rows:
        group.append(row)
        held += size
        if len(group) == GROUP or held >= MOST_BYTES:
            yield group
            group, held = [], 0
    if group:
        yield group


def _writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """One way to write Parquet: pictures as they are, text in zstd, small row groups for random reads."""
    pictures = {"image.bytes", "image.path"} if "image" in schema.names else set[str]()
    columns = [name for name in schema.names if name != "image"]
    compression = {**dict.fromkeys(columns, "zstd"), **dict.fromkeys(pictures, "none")} if pictures else "zstd"
    return pq.ParquetWriter(path, schema, compression=compression, use_dictionary=columns)


def shards_below(folder: Path) -> list[Path]:
    """The shards of every source, by name; the failures are none."""
    return sorted(path for path in folder.rglob("*.parquet") if path.name != FAILURES)


def read_rows(paths: Iterable[Path], columns: list[str]) -> Iterator[dict[str, Any]]:
    """The rows of Parquet files as dictionaries, one row group in memory at a time."""
    for path in paths:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=128, columns=columns):
                yield from batch.to_pylist()


def read_images(path: Path, rows: Sequence[int]) -> Iterator[dict[str, Any]]:
    """`image` of the rows with these numbers, which ascend; of row groups without any nothing is read."""
    start = 0
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            stop = start + file.metadata.row_group(group).num_rows
            wanted = {row for row in rows if start <= row < stop}
            if wanted:
                batches = file.iter_batches(batch_size=16, row_groups=[group], columns=["image"])
                images = (image for batch in batches for image in batch.column("image"))
                yield from (image.as_py() for row, image in enumerate(images, start) if row in wanted)
            start = stop
