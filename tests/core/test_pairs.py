"""Shards follow the content."""

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.core import pairs
from stages.core.pairs import IMAGE, MOST_BYTES, ShardWriter, read_images, shards_below, write_rows, write_table

SCHEMA = pa.schema([("key", pa.string()), ("image", IMAGE)])


def write(folder: Path, numbers: list[int]) -> list[list[str]]:
    writer = ShardWriter(folder, SCHEMA)
    for number in numbers:
        data = str(number).encode()
        writer.add({"key": hashlib.sha256(data).hexdigest(), "image": {"bytes": data, "path": ""}}, len(data))
    writer.close()
    return [pq.read_table(path)["key"].to_pylist() for path in shards_below(folder)]


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "ROWS", 16)


def test_every_row_is_in_one_shard_in_order(tmp_path: Path) -> None:
    shards = write(tmp_path, list(range(300)))
    assert [key for shard in shards for key in shard] == [
        hashlib.sha256(str(n).encode()).hexdigest() for n in range(300)
    ]
    assert 5 < len(shards) < 60


def test_a_new_row_changes_one_shard(tmp_path: Path) -> None:
    before = write(tmp_path / "a", list(range(300)))
    after = write(tmp_path / "b", [*range(150), 10_000, *range(150, 300)])
    assert len([shard for shard in before if shard not in after]) == 1
    assert 1 <= len([shard for shard in after if shard not in before]) <= 2


def test_shards_are_the_same_bytes_each_time(tmp_path: Path) -> None:
    write(tmp_path / "a", list(range(50)))
    write(tmp_path / "b", list(range(50)))
    assert [p.read_bytes() for p in shards_below(tmp_path / "a")] == [
        p.read_bytes() for p in shards_below(tmp_path / "b")
    ]


def numbered(count: int, size: int = 1) -> list[tuple[dict[str, object], int]]:
    return [({"key": str(n), "image": {"bytes": b"%d" % n, "path": str(n)}}, size) for n in range(count)]


@pytest.mark.parametrize(("count", "size", "groups"), [(1, 1, 1), (128, 1, 1), (300, 1, 3), (5, MOST_BYTES // 2, 3)])
def test_rows_one_by_one_are_written_as_a_table_is(tmp_path: Path, count: int, size: int, groups: int) -> None:
    rows = numbered(count, size)
    write_rows(iter(rows), SCHEMA, tmp_path / "a" / "rows.parquet")
    table = pa.Table.from_pylist([row for row, _ in rows], schema=SCHEMA)
    assert pq.read_table(tmp_path / "a" / "rows.parquet").equals(table)
    assert pq.ParquetFile(tmp_path / "a" / "rows.parquet").num_row_groups == groups
    if size == 1:
        write_table(table, tmp_path / "table.parquet")
        assert (tmp_path / "a" / "rows.parquet").read_bytes() == (tmp_path / "table.parquet").read_bytes()


def test_no_rows_are_no_file(tmp_path: Path) -> None:
    write_rows(iter([]), SCHEMA, tmp_path / "a" / "rows.parquet")
    assert not [*tmp_path.iterdir()]


def test_images_of_some_rows(tmp_path: Path) -> None:
    write_rows(numbered(300), SCHEMA, tmp_path / "rows.parquet")
    for wanted in ([], [0], [299], [15, 16, 127, 128, 130, 255, 256], [*range(300)]):
        assert [int(image["bytes"]) for image in read_images(tmp_path / "rows.parquet", wanted)] == wanted
