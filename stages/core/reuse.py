"""Work that was done before: values by key, outside every output, safe to delete at any time.

What a stage writes never depends on it: a value is what the work would give again.
"""

import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path

AT_ONCE = 500  # keys in one question; SQLite takes 999 and more


class Reuse:
    """A table on disk that several processes read while one writes. `path`: a file, made when first written."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def get(self, keys: Iterable[str]) -> dict[str, bytes]:
        """What is known of these keys."""
        if not self.path.exists():
            return {}
        wanted, known = list(keys), dict[str, bytes]()
        with closing(self._open()) as table:
            for start in range(0, len(wanted), AT_ONCE):
                some = wanted[start : start + AT_ONCE]
                marks = ",".join("?" * len(some))
                known.update(table.execute(f"SELECT key, value FROM known WHERE key IN ({marks})", some))  # noqa: S608 - question marks alone
        return known

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Those of the keys that nothing is known of, each once, in their order; no value is read."""
        wanted = dict.fromkeys(keys)
        if self.path.exists():
            listed = list(wanted)
            with closing(self._open()) as table:
                for start in range(0, len(listed), AT_ONCE):
                    some = listed[start : start + AT_ONCE]
                    marks = ",".join("?" * len(some))
                    for (key,) in table.execute(f"SELECT key FROM known WHERE key IN ({marks})", some):  # noqa: S608 - question marks alone
                        del wanted[key]
        return list(wanted)

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
