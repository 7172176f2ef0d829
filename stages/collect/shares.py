"""Links fetched by many machines at once: each host is asked by one task, and only the driver touches the store.

On the file system that the machines share, in `shares` beside the contents, a folder a round:

<share>.links          what a task is to ask, a JSON line each: [url, at, redirects]
<share>.<run>.answers  what a try at it found: [url, answer], or [url, at, redirects] where a redirect led to a host
                       of another share, which asks in the next round

Files are appended to by one process and locked by none. Who takes over from a lost machine reads what that one wrote.
"""

import ipaddress
import json
import os
import platform
import secrets
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from hashlib import sha256
from itertools import chain, islice
from pathlib import Path
from threading import Event, Thread
from typing import Any, TextIO

from stages.collect.addresses import Resolve
from stages.collect.answers import Answer, Link, Refused, web_url
from stages.collect.fetch import fetch_all
from stages.collect.params import Urls
from stages.collect.store import Kept, Store, Writer
from stages.core.engine import map_shards, progress
from stages.core.errors import StageError
from stages.core.reuse import Reuse

REQUESTS = 64  # at once that a task should have at least
MOST = 256  # tasks, and files open at once
ROWS = 5000  # of a list at once
LOOK = 1.0  # s between two looks at how far the tasks are


@dataclass(frozen=True)
class Share:
    """What one task asks. links: its list; number: which of `count` shares; concurrency: its part of the requests."""

    links: Path
    number: int
    count: int
    concurrency: int

    def asks(self, host: str) -> bool:
        return share_of(host, self.count) == self.number


def shares_worth(workers: int, concurrency: int) -> int:
    """How many tasks to have for so many workers and requests at once."""
    return max(1, min(workers, concurrency // REQUESTS, MOST))


def share_of(host: str, count: int) -> int:
    """Which of `count` shares asks a host. a.org, www.a.org and img.a.org have one: redirects seldom leave it then."""
    try:
        site = str(ipaddress.ip_address(host))
    except ValueError:
        site = ".".join(host.rstrip(".").split(".")[-2:])
    return int.from_bytes(sha256(site.encode()).digest()[:8]) % count


def fetch_in_shares(source: Urls, urls: Iterable[str], store: Store, resolve: Resolve, count: int) -> None:
    """Ask for each URL once, with so many tasks, and keep what they find.

    Raises StageError if a machine doesn't see the lists.
    """
    links: Iterable[Link] = (Link(url, url, source.redirects) for url in _once(urls, store))
    number = 0
    while lists := _listed(source.name, links, _shares(store) / str(number), count):
        links, number = _ask(source, lists, store, resolve, count), number + 1
    _clear(store)


def _listed(name: str, links: Iterable[Link], folder: Path, count: int) -> dict[Path, int]:
    folder.mkdir(parents=True, exist_ok=True)
    with progress() as bar:
        return write_lists(bar.track(links, description=f"{name}: lists"), folder, count)


def _ask(source: Urls, lists: dict[Path, int], store: Store, resolve: Resolve, count: int) -> Iterator[Link]:
    """One round: a task for each list; the links that go on in the next one."""
    each, more = divmod(source.concurrency, len(lists))
    shares = [Share(path, int(path.stem), count, each + (n < more)) for n, path in enumerate(sorted(lists))]
    work = partial(fetch_share, source, store.shared, resolve)
    with _shown(f"{source.name}: links", shares[0].links.parent, sum(lists.values())):
        journals = list(chain.from_iterable(map_shards(work, shares, f"{source.name}: tasks")))
    return _take(journals, store)


def take_in(store: Store) -> None:
    """Keep what the tasks of a run that was stopped had found."""
    for part in _shares(store).glob("*/"):
        for _ in _take(part.glob("*.answers"), store):
            pass  # a link that went on elsewhere begins again
    _clear(store)


def fetch_share(source: Urls, folder: Path, resolve: Resolve, share: Share) -> list[Path]:
    """Ask for what is listed and wasn't answered in an earlier try; `folder` gets the contents.

    The journals of all tries: on NFS, who lists a folder may not see yet what others made there.
    """
    if not share.links.is_file():
        do = "let .dvc/tmp lie on the file system that the machines share"
        raise StageError(str(share.links), f"isn't seen on {platform.node()}", do)
    tries = list(share.links.parent.glob(f"{share.number}.*.answers"))
    done = {line[0] for path in tries for line in _lines(path)}
    links = (Link(*line) for line in _lines(share.links) if line[0] not in done)
    journal = share.links.with_name(f"{share.number}.{secrets.token_hex(8)}.answers")
    with journal.open("x", encoding="ascii") as file:

        def record(answers: dict[str, Kept]) -> None:
            file.writelines(f"{json.dumps((url, vars(kept)))}\n" for url, kept in answers.items())
            file.flush()
            os.fsync(file.fileno())

        def keep(link: Link, came: Answer | Link) -> None:
            if isinstance(came, Answer):
                writer.put(link.url, came)
            else:
                file.write(_line(came))

        part = source.model_copy(update={"concurrency": share.concurrency})
        with Writer(folder, record) as writer:
            fetch_all(part, links, keep, resolve, share.asks)
    return [*tries, journal]


def _shares(store: Store) -> Path:
    return store.shared / "shares"


def _clear(store: Store) -> None:
    for folder in (_shares(store), store.folder / "listed"):
        shutil.rmtree(folder, ignore_errors=True)


def _once(urls: Iterable[str], store: Store) -> Iterator[str]:
    """Each of the URLs once; on disk, as they may be many."""
    folder = store.folder / "listed"
    folder.mkdir(exist_ok=True)
    listed, each = Reuse(folder / "urls.sqlite"), iter(urls)
    while some := list(islice(each, ROWS)):
        new = listed.missing(some)
        listed.put(dict.fromkeys(new, b""))
        yield from new


def write_lists(links: Iterable[Link], folder: Path, count: int) -> dict[Path, int]:
    """Write each link to the list of the share that asks its host, `<share>.links`; how many are on each."""
    sizes = Counter[int]()
    with ExitStack() as stack:
        files: dict[int, TextIO] = {}
        for link in links:
            number = _share_of_origin("/".join(link.at.split("/", 3)[:3]), count)
            if number not in files:
                files[number] = stack.enter_context((folder / f"{number}.links").open("w", encoding="ascii"))
            files[number].write(_line(link))
            sizes[number] += 1
        for file in files.values():
            file.flush()
            os.fsync(file.fileno())
    return {folder / f"{number}.links": size for number, size in sizes.items()}


@lru_cache(2**16)
def _share_of_origin(origin: str, count: int) -> int:
    """origin: a URL up to its path. What is none is in the first share, which says why and asks nobody."""
    try:
        return share_of(web_url(origin).host, count)
    except Refused:
        return 0


def _take(journals: Iterable[Path], store: Store) -> Iterator[Link]:
    """Have the store know what the tasks found; the links that go on elsewhere."""
    for path in journals:
        lines = _lines(path)
        while some := list(islice(lines, ROWS)):
            store.record({url: Kept(**kept) for url, kept, *rest in some if not rest})
            yield from (Link(*line) for line in some if len(line) == 3)


def _line(link: Link) -> str:
    return f"{json.dumps([link.url, link.at, link.redirects])}\n"


def _lines(path: Path) -> Iterator[list[Any]]:
    """The lines of a list or journal; without the last one of a journal if the machine was lost in the middle of it."""
    with path.open(encoding="ascii") as file:
        yield from (json.loads(line) for line in file if line.endswith("\n"))


@contextmanager
def _shown(label: str, part: Path, total: int) -> Iterator[None]:
    """A bar of the links that the tasks are done with."""
    over = Event()

    def look() -> None:
        ends, lines = Counter[Path](), 0
        while not over.wait(LOOK):
            for path in part.glob("*.answers"):
                with path.open("rb") as file:
                    file.seek(ends[path])
                    new = file.read()
                ends[path] += len(new)
                lines += new.count(b"\n")
            bar.update(shown, completed=lines)

    with progress() as bar:
        shown = bar.add_task(label, total=total)
        looking = Thread(target=look, daemon=True)
        looking.start()
        try:
            yield
        finally:
            over.set()
            looking.join()
