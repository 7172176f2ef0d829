"""data/processed without its pictures: a table of the rows, and where each one's picture is."""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stages.core.engine import map_shards
from stages.core.errors import StageError
from stages.core.exchange import Files
from stages.core.pairs import read_rows, shards_below

COLUMNS = [
    *("key", "variant", "split", "role", "repeats", "captions"),
    *("width", "height", "original_width", "original_height", "crop_x", "crop_y"),
]


@dataclass(frozen=True, slots=True)
class Picture:
    """A row of data/processed without its picture: which file and row, and the sha256 of the PNG."""

    key: str
    shard: Path
    row: int
    width: int
    height: int
    name: str


def read_processed(processed: Path) -> tuple[pa.Table, list[Picture]]:
    """The columns COLUMNS of every row, and the pictures in the same order.

    Raises StageError if there are none, or none to compare models on.
    """
    tables: list[pa.Table] = []
    pictures: list[Picture] = []
    for table, some in map_shards(_read, shards_below(processed), "read", files=Files(lambda shard: [shard])):
        tables.append(table)
        pictures += some
    if not pictures:
        raise StageError(str(processed), "holds no pictures", "run preprocess again")
    rows = pa.concat_tables(tables)
    if not pc.any(pc.equal(rows.column("split"), "validation")).as_py():
        raise StageError("encode", "no picture is held out to compare models on", "raise clean.validation_share")
    return rows, pictures


def _read(shard: Path) -> tuple[pa.Table, list[Picture]]:
    table = pq.read_table(shard, columns=COLUMNS)
    names = [sha256(row["image"]["bytes"]).hexdigest() for row in read_rows([shard], ["image"])]
    columns = (table.column(name).to_pylist() for name in ("key", "width", "height"))
    return table, [
        Picture(key, shard, row, width, height, name)
        for row, (key, width, height, name) in enumerate(zip(*columns, names, strict=True))
    ]


def distinct_captions(rows: pa.Table) -> list[str]:
    """Every caption once in order, the empty one first."""
    found = pc.unique(pc.list_flatten(rows.column("captions"))).to_pylist()
    return ["", *sorted(set(found) - {""})]


def numbered(rows: pa.Table, captions: list[str]) -> pa.Table:
    """The rows with their captions' numbers in place of the captions."""
    known = pa.array(captions, pa.string())
    chunks = []
    for chunk in rows.column("captions").chunks:
        numbers = pc.index_in(chunk.flatten(), value_set=known).cast(pa.int64())
        ends = pc.list_value_length(chunk).fill_null(0).to_numpy().cumsum()
        chunks.append(pa.ListArray.from_arrays(pa.array([0, *ends], pa.int32()), numbers))
    place = rows.schema.get_field_index("captions")
    return rows.set_column(place, "captions", pa.chunked_array(chunks, pa.list_(pa.int64())))
