"""What was downloaded before, outside every output: a killed download goes on where it was.

An index of answers by URL, and a file of contents, end to end, for each run. Safe to delete: then all is asked again.
"""

import json
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from stages.collect.answers import Answer
from stages.core.reuse import Reuse

AT_ONCE, EVERY = 256, 0.25  # answers, and seconds, after which the index is written: what a SIGKILL costs
BUFFER = 2**20  # bytes
MOST_OPEN = 256  # files of contents


@dataclass(frozen=True)
class Kept:
    """An answer in the index. run: which run asked. start, size: bytes, of the content in that run's file."""

    code: str
    reason: str
    run: str
    start: int = 0
    size: int = 0

    @property
    def passing(self) -> bool:
        return Answer(self.code).passing


class Writer:
    """Answers to a run's file of contents. A context manager that writes what is left at its end.

    record: is told of answers when the disk has their contents: a power loss can't come between.
    """

    def __init__(self, folder: Path, record: Callable[[dict[str, Kept]], None]) -> None:
        self.run = secrets.token_hex(8)
        self.new: dict[str, Kept] = {}
        self.end = 0
        self._path, self._record = contents_of(folder, self.run), record
        self._written = time.monotonic()
        self._contents: BinaryIO | None = None

    def __enter__(self) -> "Writer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.flush()
        if self._contents:
            self._contents.close()

    def put(self, url: str, answer: Answer) -> None:
        """Keep an answer."""
        start, size = 0, len(answer.data)
        if answer.data:
            if self._contents is None:
                self._contents = self._path.open("wb", buffering=BUFFER)
            self._contents.write(answer.data)
            start, self.end = self.end, self.end + size
        self.new[url] = Kept(answer.code, answer.reason, self.run, start, size)
        if len(self.new) >= AT_ONCE or time.monotonic() - self._written > EVERY:
            self.flush()

    def flush(self) -> None:
        """Have the disk hold the contents, then tell of them."""
        if self._contents:
            self._contents.flush()
            os.fsync(self._contents.fileno())
        if self.new:
            self._record(self.new)
        self.new, self._written = {}, time.monotonic()


class Store:
    """Answers by URL, for one process. A context manager.

    folder: has the index, and contents that this process fetched. shared: those that tasks of a cluster fetched.
    """

    def __init__(self, folder: Path, shared: Path) -> None:
        self.folder, self.shared = folder, shared
        self._index = Reuse(folder / "answers.sqlite")
        self._writer = Writer(folder, self.record)
        self._open: dict[str, BinaryIO] = {}

    def __enter__(self) -> "Store":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.__exit__(kind, error, trace)
        for file in self._open.values():
            file.close()

    def missing(self, urls: Iterable[str]) -> Iterator[str]:
        """Which of these must be asked: never answered, content lost, or failed in an earlier run and may pass."""
        wanted = dict.fromkeys(urls)
        known, sizes = self.get(wanted), {self._writer.run: self._writer.end}
        for url in wanted:
            kept = known.get(url)
            if kept and kept.run not in sizes:
                path = self._contents(kept.run)
                sizes[kept.run] = path.stat().st_size if path.exists() else 0
            earlier = kept is not None and kept.run != self._writer.run
            if kept is None or (kept.passing and earlier) or kept.start + kept.size > sizes[kept.run]:
                yield url

    def get(self, urls: Iterable[str]) -> dict[str, Kept]:
        """What is known of these."""
        wanted = list(urls)
        known = {url: Kept(**json.loads(value)) for url, value in self._index.get(wanted).items()}
        return known | {url: self._writer.new[url] for url in wanted if url in self._writer.new}

    def put(self, url: str, answer: Answer) -> None:
        """Keep an answer."""
        self._writer.put(url, answer)

    def flush(self) -> None:
        """Write what isn't written yet."""
        self._writer.flush()

    def record(self, answers: dict[str, Kept]) -> None:
        """Have the index name answers whose contents lie there already."""
        self._index.put({url: json.dumps(vars(kept)).encode() for url, kept in answers.items()})

    def content(self, kept: Kept) -> bytes:
        """The bytes of an answer."""
        if kept.run not in self._open:
            if len(self._open) >= MOST_OPEN:
                self._open.pop(next(iter(self._open))).close()
            self._open[kept.run] = self._contents(kept.run).open("rb")
        self._open[kept.run].seek(kept.start)
        return self._open[kept.run].read(kept.size)

    def _contents(self, run: str) -> Path:
        here = contents_of(self.folder, run)
        return here if here.exists() else contents_of(self.shared, run)


def contents_of(folder: Path, run: str) -> Path:
    """Where the contents of a run's answers lie."""
    return folder / f"{run}.contents"
