"""Tables of links: first everything that is missing is fetched, in any order; then the table is read in its own.

What is fetched goes to a store outside the outputs, so the order in which servers answer changes no byte, memory
holds the requests under way and no more, and a second run asks only for what is missing or may have come back.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path

from stages.collect.addresses import Resolve, resolve
from stages.collect.answers import Answer, Link
from stages.collect.fetch import fetch_all
from stages.collect.found import Found
from stages.collect.params import Urls
from stages.collect.shares import fetch_in_shares, shares_worth, take_in
from stages.collect.store import Kept, Store
from stages.collect.tables import Row, read_tables
from stages.core.engine import cluster_workers, progress
from stages.core.exchange import EXCHANGE
from stages.core.files import scratch, shared_scratch
from stages.core.pairs import Failure

ROWS = 500  # of a table at once
POLICY = {"most_bytes", "redirects", "obey_robots", "noai", "allow_hosts"}  # params that can change an answer


def read_urls(source: Urls, sources: Path, resolve: Resolve = resolve) -> Iterator[Found | Failure]:
    """A picture or a failure for every row, in order of tables and rows; a link that stands twice is asked once.

    Raises StageError if there are no tables, one lacks the columns, or this is no DVC project.
    """
    place = ("urls", _policy(source))
    with Store(scratch(*place), shared_scratch(*place)) as store:
        take_in(store)
        missing = _missing(source, sources, store)
        # Over an exchange each picture would go up and come down again: no less work than to ask for it here.
        workers = 0 if os.environ.get(EXCHANGE) else cluster_workers()
        if (count := shares_worth(workers, source.concurrency)) > 1:
            fetch_in_shares(source, chain.from_iterable(missing), store, resolve, count)
        else:
            _fetch(source, missing, store, resolve)
            store.flush()
        for rows in _some(read_tables(source, sources)):
            known = store.get(row.url for row in rows)
            for row in rows:
                yield _found(source, row, known, store)


def _policy(source: Urls) -> str:
    """What an answer depends on beside its URL: what was refused under one policy is asked anew under another."""
    return hashlib.sha256(source.model_dump_json(include=POLICY).encode()).hexdigest()[:32]


def _some(rows: Iterable[Row]) -> Iterator[list[Row]]:
    each = iter(rows)
    while some := list(islice(each, ROWS)):
        yield some


def _missing(source: Urls, sources: Path, store: Store) -> Iterator[list[str]]:
    """URLs that the store has no answer for, those of some rows at a time, each once in them."""
    for rows in _some(read_tables(source, sources)):
        yield list(store.missing(row.url for row in rows if not row.code))


def _fetch(source: Urls, missing: Iterable[list[str]], store: Store, resolve: Resolve) -> None:
    """Ask for them, here."""
    under_way: set[str] = set()

    def links() -> Iterator[Link | None]:
        for urls in missing:
            for url in [url for url in urls if url not in under_way]:  # now: what is under way may be answered soon
                under_way.add(url)
                yield Link(url, url, source.redirects)
            yield None  # let the others go on while known links are passed over

    with progress() as bar:
        shown = bar.add_task(f"{source.name}: links", total=None)

        def keep(link: Link, came: Answer | Link) -> None:
            if isinstance(came, Answer):  # it is: every host is asked here
                store.put(link.url, came)
            under_way.remove(link.url)
            bar.advance(shown)

        fetch_all(source, links(), keep, resolve)


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
