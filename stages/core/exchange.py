"""Files over an object store, for a cluster whose machines share no file system: `DARKROOM_EXCHANGE=s3://bucket/folder`.

What a task reads goes up by the sha256 of its content, once; what it writes comes back the same way. Any URL of fsspec
will do whose library is installed. Nothing is deleted there: have the store forget what is old.
"""

import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Generic, TypeVar

from stages.core.errors import StageError
from stages.core.files import file_digest

T = TypeVar("T")
R = TypeVar("R")

EXCHANGE = "DARKROOM_EXCHANGE"


@dataclass(frozen=True)
class Files(Generic[T]):
    """What tasks read and write: paths relative to the project. common: files and folders that every task reads."""

    reads: Callable[[T], Iterable[Path]]
    writes: Callable[[T], Iterable[Path]] = lambda _: ()
    common: Sequence[Path] = ()


@dataclass(frozen=True)
class Parcel:
    """Where a task's files are: path -> sha256. writes: what to send back."""

    url: str
    common: dict[str, str]
    reads: dict[str, str]
    writes: list[str]


class Exchange:
    """The store at a URL. Raises StageError if no library knows it, or it can't be reached."""

    def __init__(self, url: str) -> None:
        from fsspec.core import url_to_fs  # here: it takes a tenth of a second that most runs don't need

        try:
            self._store, self._root = url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise StageError(
                EXCHANGE, f"{url} can't be opened ({str(error).splitlines()[0]})", "`pip install s3fs` for s3://"
            ) from None
        self.url = url

    def put(self, paths: Iterable[Path]) -> dict[str, str]:
        """Send files, and those below folders, unless their content is there; path -> sha256. Others are passed over.

        Raises StageError if the store refuses.
        """
        sent = {}
        for path in paths:
            for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
                if file.is_file():
                    sent[file.as_posix()] = digest = file_digest(file)
                    try:
                        if not self._store.exists(self._place(digest)):
                            self._store.put_file(str(file), self._place(digest))
                    except OSError as error:
                        raise StageError(EXCHANGE, f"{self.url}: {error}", "look after the store, run again") from None
        return sent

    def get(self, digest: str, path: Path) -> None:
        """Fetch a file. Raises StageError if it is missing or is not what was sent."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.partial")
        try:
            self._store.get_file(self._place(digest), str(partial))
        except OSError as error:
            raise StageError(EXCHANGE, f"{self.url}: {error}", "look after the store, run again") from None
        if file_digest(partial) != digest:
            partial.unlink()
            raise StageError(EXCHANGE, f"{self._place(digest)} is not what was sent", "delete it, run again")
        partial.rename(path)

    def parcel(self, files: "Files[T] | None", common: dict[str, str], task: T) -> Parcel:
        """Send what a task reads."""
        if files is None:
            return Parcel(self.url, common, {}, [])
        return Parcel(self.url, common, self.put(files.reads(task)), [str(path) for path in files.writes(task)])

    def _place(self, digest: str) -> str:
        return f"{self._root}/{digest}"


def work_apart(parcel: Parcel, function: Callable[[T], R], task: T) -> tuple[R, dict[str, str]]:
    """The task in a folder of its own that has its files; what it gave, and what it wrote: path -> sha256."""
    exchange = _opened(parcel.url)
    with tempfile.TemporaryDirectory(prefix="darkroom-") as name:
        for path, digest in parcel.reads.items():
            exchange.get(digest, Path(name, path))
        for path, digest in parcel.common.items():
            _link(exchange, digest, Path(name, path))
        os.chdir(name)
        try:
            result = function(task)
            return result, exchange.put(map(Path, parcel.writes))
        finally:
            os.chdir(tempfile.gettempdir())


def take(exchange: Exchange, written: Mapping[str, str]) -> None:
    """Fetch what a task wrote."""
    for path, digest in written.items():
        exchange.get(digest, Path(path))


def _link(exchange: Exchange, digest: str, path: Path) -> None:
    """A file that every task reads: this process fetches it once."""
    kept = Path(_kept().name, digest)
    if not kept.exists():
        exchange.get(digest, kept)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.hardlink_to(kept)


@lru_cache(maxsize=1)
def _kept() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="darkroom-kept-")


@lru_cache(maxsize=1)
def _opened(url: str) -> Exchange:
    return Exchange(url)
