"""From what is found to shards, on disk all the way: memory holds one shard, however large the source is."""

import json
import shutil
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from stages.core.pairs import FAILURE, RAW, Failure, Pair, ShardWriter, read_rows, shards_below

FAILURES_AT_ONCE = 4096


def write_source(
    found: Iterable[Pair | Failure], limit: int | None, folder: Path, failures: "FailureWriter"
) -> tuple[int, int]:
    """Write one source's pairs to shards in `folder`, in the order found; give back how many, and how many uncaptioned.

    Byte-identical pictures become one row with all their captions; the later ones are failures `same_bytes`.
    `limit` takes the lowest keys: a picture's place in the source doesn't matter. Both are known only at the
    end; then, if they change anything, the shards are written once more.
    """
    first, uncaptioned = folder.with_name(f"{folder.name}.first"), 0
    with Seen(folder.with_name(f"{folder.name}.sqlite")) as seen:
        writer = ShardWriter(first, RAW)
        for item in found:
            if isinstance(item, Failure):
                failures.add(item)
            elif known := seen.meet(item):
                failures.add(Failure(item.source, item.path, "same_bytes", f"as {known}"))
            else:
                writer.add(item.row(), len(item.data))
                uncaptioned += not item.captions
        writer.close()
        last = seen.last_within(limit)
        if not writer.written or (last is None and not seen.changed):
            if first.exists():
                first.rename(folder)
            return writer.written, uncaptioned
        final, uncaptioned = ShardWriter(folder, RAW), 0
        for row in read_rows(shards_below(first), RAW.names):
            if last is not None and row["key"] > last:
                failures.add(Failure(row["source"], row["image"]["path"], "over_limit"))
            else:
                captions = seen.captions(row["key"])
                final.add({**row, "captions": captions}, len(row["image"]["bytes"]))
                uncaptioned += not captions
        final.close()
        shutil.rmtree(first)
        return final.written, uncaptioned


@dataclass
class Seen:
    """Which keys were met, where first, and with which captions: a table on disk."""

    path: Path
    changed: bool = False
    _count: int = 0

    def __enter__(self) -> "Seen":
        self._table = sqlite3.connect(self.path, isolation_level=None)
        self._table.executescript(
            "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA temp_store=FILE; BEGIN;"
            "CREATE TABLE seen (key TEXT PRIMARY KEY, path TEXT, captions TEXT) WITHOUT ROWID;"
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._table.close()
        self.path.unlink()

    def meet(self, pair: Pair) -> str | None:
        """Where these bytes were met before, None if nowhere; their captions are kept."""
        known = self._table.execute("SELECT path, captions FROM seen WHERE key = ?", (pair.key,)).fetchone()
        if known is None:
            self._table.execute("INSERT INTO seen VALUES (?, ?, ?)", (pair.key, pair.path, json.dumps(pair.captions)))
            self._count += 1
            return None
        captions = json.loads(known[1])
        added = [caption for caption in pair.captions if caption not in captions]
        if added:
            self._table.execute("UPDATE seen SET captions = ? WHERE key = ?", (json.dumps(captions + added), pair.key))
            self.changed = True
        return str(known[0])

    def captions(self, key: str) -> list[str]:
        """All captions met with these bytes."""
        row = self._table.execute("SELECT captions FROM seen WHERE key = ?", (key,)).fetchone()
        captions: list[str] = json.loads(row[0])
        return captions

    def last_within(self, limit: int | None) -> str | None:
        """The highest of the `limit` lowest keys; None if there are no more than that."""
        if limit is None or self._count <= limit:
            return None
        row = self._table.execute("SELECT key FROM seen ORDER BY key LIMIT 1 OFFSET ?", (limit - 1,)).fetchone()
        return str(row[0])


@dataclass
class FailureWriter:
    """Writes failures to one Parquet file as they come, and counts them by source and code."""

    path: Path
    counts: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    first: dict[str, Failure] = field(default_factory=dict)
    _held: list[Failure] = field(default_factory=list)

    def __enter__(self) -> "FailureWriter":
        self._writer = pq.ParquetWriter(self.path, FAILURE, compression="zstd")
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        self._writer.close()

    def add(self, failure: Failure) -> None:
        self.counts[failure.source][failure.code] += 1
        self.first.setdefault(failure.source, failure)
        self._held.append(failure)
        if len(self._held) == FAILURES_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        if self._held:
            self._writer.write_table(pa.Table.from_pylist([asdict(failure) for failure in self._held], schema=FAILURE))
            self._held = []
