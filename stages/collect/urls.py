"""Tables of links: first everything that is missing is fetched, in any order; then the table is read in its own.

What is fetched goes to a store outside the outputs, so the order in which servers answer changes no byte, memory
holds the requests under way and no more, and a second run asks only for what is missing or may have come back.
"""

import asyncio
import gc
import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from stages.collect.addresses import Resolve, resolve
from stages.collect.fetch import Fetcher
from stages.collect.found import Found
from stages.collect.params import Urls
from stages.collect.store import Kept, Store
from stages.collect.tables import Row, read_tables
from stages.core.engine import progress
from stages.core.files import scratch
from stages.core.pairs import Failure

AHEAD = 8  # links under way for each of `concurrency`: those of a slow host don't keep the others waiting
ROWS = 500  # of a table at once
POLICY = {"most_bytes", "redirects", "obey_robots", "noai", "allow_hosts"}  # params that can change an answer


def read_urls(source: Urls, sources: Path, resolve: Resolve = resolve) -> Iterator[Found | Failure]:
    """A picture or a failure for every row, in order of tables and rows; a link that stands twice is asked once.

    Raises StageError if there are no tables, one lacks the columns, or this is no DVC project.
    """
    with Store(scratch("urls", _policy(source))) as store:
        with _few_collections():
            asyncio.run(_fetch(source, sources, store, resolve))
        store.flush()
        for rows in _some(read_tables(source, sources)):
            known = store.get(row.url for row in rows)
            for row in rows:
                yield _found(source, row, known, store)


@contextmanager
def _few_collections() -> Iterator[None]:
    """Look for cycles a thirtieth as often: requests make many objects and few cycles. It saves a sixth of the time."""
    before = gc.get_threshold()
    gc.set_threshold(20_000, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _policy(source: Urls) -> str:
    """What an answer depends on beside its URL: what was refused under one policy is asked anew under another."""
    return hashlib.sha256(source.model_dump_json(include=POLICY).encode()).hexdigest()[:32]


def _some(rows: Iterable[Row]) -> Iterator[list[Row]]:
    each = iter(rows)
    while some := list(islice(each, ROWS)):
        yield some


async def _fetch(source: Urls, sources: Path, store: Store, resolve: Resolve) -> None:
    """Ask for every link that is missing in the store."""
    under_way: set[str] = set()

    def missing() -> Iterator[str | None]:
        for rows in _some(read_tables(source, sources)):
            for url in store.missing(row.url for row in rows if not row.code):
                if url not in under_way:
                    yield url
            yield None

    links = missing()
    with progress() as bar:
        shown = bar.add_task(f"{source.name}: links", total=None)
        async with Fetcher(source, resolve) as fetcher:

            async def work() -> None:
                for url in links:
                    if url is None:  # let the others go on while known links are passed over
                        await asyncio.sleep(0)
                        continue
                    under_way.add(url)
                    store.put(url, await fetcher.fetch(url))
                    under_way.remove(url)
                    bar.advance(shown)

            await asyncio.gather(*(work() for _ in range(AHEAD * source.concurrency)))


def _found(source: Urls, row: Row, known: dict[str, Kept], store: Store) -> Found | Failure:
    if row.code:
        return Failure(source.name, row.path, row.code)
    kept = known[row.url]
    if kept.code != "ok":
        return Failure(source.name, row.path, kept.code, f"{row.url} ({kept.reason})" if kept.reason else row.url)
    terms = row.extra.get("license")
    return Found(
        store.content(kept),
        row.path,
        row.captions,
        row.extra,
        url=row.url,
        license=terms if isinstance(terms, str) else None,
    )
