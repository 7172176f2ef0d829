"""What was downloaded before, outside every output: a killed download goes on where it was.

An index of answers by URL, and a file for each content. Safe to delete at any time: then all is asked again.
"""

import hashlib
import json
import secrets
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from stages.collect.answers import Answer
from stages.core.errors import StageError
from stages.core.reuse import Reuse

AT_ONCE, EVERY = 256, 0.25  # answers, and seconds, after which the index is written: what a SIGKILL costs


@dataclass(frozen=True)
class Kept:
    """An answer in the index. run: which run asked. digest, size: of the content, if there is any."""

    code: str
    reason: str
    run: str
    digest: str = ""
    size: int = 0

    @property
    def passing(self) -> bool:
        return Answer(self.code).passing


class Store:
    """Answers that were kept in `folder`, by URL."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "contents"
        self._index = Reuse(folder / "answers.sqlite")
        self._run = secrets.token_hex(8)
        self._new: dict[str, Kept] = {}
        self._written = time.monotonic()

    def missing(self, urls: Iterable[str]) -> Iterator[str]:
        """Which of these must be asked: never answered, content lost, or failed in an earlier run and may pass."""
        wanted = dict.fromkeys(urls)
        known = self.get(wanted)
        for url in wanted:
            kept = known.get(url)
            if kept is None or (kept.passing and kept.run != self._run) or (kept.digest and not self._is_there(kept)):
                yield url

    def get(self, urls: Iterable[str]) -> dict[str, Kept]:
        """What is known of these."""
        wanted = list(urls)
        known = {url: Kept(**json.loads(value)) for url, value in self._index.get(wanted).items()}
        return known | {url: self._new[url] for url in wanted if url in self._new}

    def put(self, url: str, answer: Answer) -> None:
        """Keep an answer: its content now, its row in the index with the next ones."""
        digest = ""
        if answer.data:
            digest = hashlib.sha256(answer.data).hexdigest()
            path = self._path(digest)
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f"{digest}.{self._run}.partial")
            temporary.write_bytes(answer.data)
            temporary.replace(path)
        self._new[url] = Kept(answer.code, answer.reason, self._run, digest, len(answer.data))
        if len(self._new) >= AT_ONCE or time.monotonic() - self._written > EVERY:
            self.flush()

    def flush(self) -> None:
        """Write the index."""
        self._index.put({url: json.dumps(vars(kept)).encode() for url, kept in self._new.items()})
        self._new, self._written = {}, time.monotonic()

    def content(self, kept: Kept) -> bytes:
        """The bytes of an answer. Raises StageError if the disk has damaged them."""
        path = self._path(kept.digest)
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != kept.digest:
            path.unlink()
            raise StageError(str(path), "was damaged on the disk and is removed", "run again to fetch it anew")
        return data

    def _is_there(self, kept: Kept) -> bool:
        try:
            return self._path(kept.digest).stat().st_size == kept.size
        except FileNotFoundError:
            return False

    def _path(self, digest: str) -> Path:
        return self._folder / digest[:2] / digest
