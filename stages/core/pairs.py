"""Image-text pairs on disk: Parquet shards whose bounds follow the content.

A shard ends after a row whose key says so (its first 32 bits are a multiple of
`ROWS`), so membership is a function of the rows alone: a new row changes the
shard it falls in and no other.
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

ROWS = 512  # rows a shard on average
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

    key: sha256 of `data`, hex. captions: may be empty. role: train or regularisation.
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
    """Writes rows with a `key` and an `image` to numbered shards in `folder`."""

    folder: Path
    schema: pa.Schema
    written: int = 0
    _rows: list[dict[str, Any]] = field(default_factory=list)
    _bytes: int = 0
    _shard: int = 0

    def add(self, row: dict[str, Any], size: int) -> None:
        self._rows.append(row)
        self._bytes += size
        self.written += 1
        if int(str(row["key"])[:8], 16) % ROWS == 0 or self._bytes >= MOST_BYTES:
            self.close()

    def close(self) -> None:
        """Write what is held, if anything is."""
        if self._rows:
            self.folder.mkdir(parents=True, exist_ok=True)
            table = pa.Table.from_pylist(self._rows, schema=self.schema)
            write_table(table, self.folder / f"{self._shard:05d}.parquet")
            self._shard += 1
            self._rows, self._bytes = [], 0


def write_table(table: pa.Table, path: Path) -> None:
    """One way to write Parquet: pictures as they are, text in zstd, small row groups for random reads."""
    pictures = {"image.bytes", "image.path"} if "image" in table.schema.names else set()
    columns = [name for name in table.schema.names if name != "image"]
    pq.write_table(
        table,
        path,
        row_group_size=128 if pictures else 65_536,
        compression={**dict.fromkeys(columns, "zstd"), **dict.fromkeys(pictures, "none")} if pictures else "zstd",
        use_dictionary=columns,
    )


def shards_below(folder: Path) -> list[Path]:
    """The shards of every source, by name; the failures are none."""
    return sorted(path for path in folder.rglob("*.parquet") if path.name != FAILURES)


def read_rows(paths: Iterable[Path], columns: list[str]) -> Iterator[dict[str, Any]]:
    """The rows of Parquet files as dictionaries, one row group in memory at a time."""
    for path in paths:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=128, columns=columns):
                yield from batch.to_pylist()
