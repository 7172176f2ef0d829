"""What was downloaded before, outside every output: a killed download goes on where it was.

An index of answers by URL, and a file of contents, end to end, for each run. Safe to delete: then all is asked again.
"""

import json
import os
import secrets
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from stages.collect.answers import Answer
from stages.core.reuse import Reuse

AT_ONCE, EVERY = 256, 0.25  # answers, and seconds, after which the index is written: what a SIGKILL costs
BUFFER = 2**20  # bytes
MOST_OPEN = 64  # files of earlier runs


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


class Store:
    """Answers that were kept in `folder`, by URL. A context manager that writes what is left at its end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._index = Reuse(folder / "answers.sqlite")
        self._run = secrets.token_hex(8)
        self._new: dict[str, Kept] = {}
        self._written = time.monotonic()
        self._contents: BinaryIO | None = None
        self._end = 0
        self._open: dict[str, BinaryIO] = {}

    def __enter__(self) -> "Store":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.flush()
        for file in [*self._open.values(), *([self._contents] if self._contents else [])]:
            file.close()

    def missing(self, urls: Iterable[str]) -> Iterator[str]:
        """Which of these must be asked: never answered, content lost, or failed in an earlier run and may pass."""
        wanted = dict.fromkeys(urls)
        known, sizes = self.get(wanted), {self._run: self._end}
        for url in wanted:
            kept = known.get(url)
            if kept and kept.run not in sizes:
                path = self._path(kept.run)
                sizes[kept.run] = path.stat().st_size if path.exists() else 0
            if kept is None or (kept.passing and kept.run != self._run) or kept.start + kept.size > sizes[kept.run]:
                yield url

    def get(self, urls: Iterable[str]) -> dict[str, Kept]:
        """What is known of these."""
        wanted = list(urls)
        known = {url: Kept(**json.loads(value)) for url, value in self._index.get(wanted).items()}
        return known | {url: self._new[url] for url in wanted if url in self._new}

    def put(self, url: str, answer: Answer) -> None:
        """Keep an answer."""
        start, size = 0, len(answer.data)
        if answer.data:
            if self._contents is None:
                self._contents = self._path(self._run).open("wb", buffering=BUFFER)
            self._contents.write(answer.data)
            start, self._end = self._end, self._end + size
        self._new[url] = Kept(answer.code, answer.reason, self._run, start, size)
        if len(self._new) >= AT_ONCE or time.monotonic() - self._written > EVERY:
            self.flush()

    def flush(self) -> None:
        """Have the disk hold the contents, then the index that names them: a power loss can't come between."""
        if self._contents:
            self._contents.flush()
            os.fsync(self._contents.fileno())
        self._index.put({url: json.dumps(vars(kept)).encode() for url, kept in self._new.items()})
        self._new, self._written = {}, time.monotonic()

    def content(self, kept: Kept) -> bytes:
        """The bytes of an answer."""
        if kept.run not in self._open:
            if len(self._open) >= MOST_OPEN:
                self._open.pop(next(iter(self._open))).close()
            self._open[kept.run] = self._path(kept.run).open("rb")
        self._open[kept.run].seek(kept.start)
        return self._open[kept.run].read(kept.size)

    def _path(self, run: str) -> Path:
        return self._folder / f"{run}.contents"
