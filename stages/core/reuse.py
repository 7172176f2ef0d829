"""Work that was done before: values by key, outside every output, safe to delete at any time.

What a stage writes never depends on it: a value is what the work would give again.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

AT_ONCE = 500  # keys in one question; SQLite takes 999 and more


class Known(Protocol):
    """Values by key."""

    def get(self, keys: Iterable[str]) -> dict[str, bytes]:
        """What is known of these keys."""

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Those of the keys that nothing is known of, each once, in their order."""

    def put(self, values: Mapping[str, bytes]) -> None:
        """Keep these."""


class Held:
    """In memory: what a task on another machine is given, and what it adds."""

    def __init__(self, values: Mapping[str, bytes]) -> None:
        self.values = dict(values)

    def get(self, keys: Iterable[str]) -> dict[str, bytes]:
        """As Known says."""
        return {key: self.values[key] for key in keys if key in self.values}

    def missing(self, keys: Iterable[str]) -> list[str]:
        """As Known says."""
        return [key for key in dict.fromkeys(keys) if key not in self.values]

    def put(self, values: Mapping[str, bytes]) -> None:
        """As Known says."""
        self.values.update(values)


class Reuse:
    """On disk: a table that several processes of one machine read and write; who writes waits for the others.

    path: a file, made when first written. SQLite's write-ahead log can't be shared by machines: of a cluster, only the
    one that the stage runs on opens it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def get(self, keys: Iterable[str]) -> dict[str, bytes]:
        """What is known of these keys."""
        return dict(self._rows("key, value", list(keys)))

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Those of the keys that nothing is known of, each once, in their order; no value is read."""
        wanted = dict.fromkeys(keys)
        for (key,) in self._rows("key", list(wanted)):
            del wanted[key]
        return list(wanted)

    def _rows(self, columns: str, keys: list[str]) -> Iterator[tuple[Any, ...]]:
        """These columns of the rows that are there, some at a time."""
        if not self.path.exists():
            return
        with closing(self._open()) as table:
            for start in range(0, len(keys), AT_ONCE):
                some = keys[start : start + AT_ONCE]
                marks = ",".join("?" * len(some))
                yield from table.execute(f"SELECT {columns} FROM known WHERE key IN ({marks})", some)  # noqa: S608 - our own names and question marks

    def put(self, values: Mapping[str, bytes]) -> None:
        """Keep these; all of them or, if the process is killed, none."""
        if values:
            with closing(self._open()) as table, table:
                table.executemany("INSERT OR REPLACE INTO known VALUES (?, ?)", values.items())

    def _open(self) -> sqlite3.Connection:
        table = sqlite3.connect(self.path, timeout=60)
        table.execute("PRAGMA journal_mode=WAL")
        table.execute("PRAGMA synchronous=NORMAL")
        table.execute("CREATE TABLE IF NOT EXISTS known (key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID")
        return table
