"""Shards follow the content."""

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.core import pairs
from stages.core.pairs import IMAGE, ShardWriter, shards_below

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
