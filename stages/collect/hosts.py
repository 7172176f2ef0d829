"""What is owed to a host: few requests at once, not too often, and none that its robots.txt disallows."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpcore2
import httpx2
from protego import Protego

from stages.collect.answers import AGENT, Refused

MOST_HOSTS = 10_000  # known at once; robots.txt of forgotten ones is read again
Origin = tuple[str, str, int | None]
Connect = Callable[[int], httpcore2.AsyncConnectionPool]


@dataclass
class Host:
    """One origin. pool, connections: its own, so many requests at once. interval: s between two requests.

    rules: its robots.txt, or why it couldn't be read; None until it is asked for.
    """

    pool: httpcore2.AsyncConnectionPool
    connections: asyncio.Semaphore
    interval: float = 0.0
    rules: asyncio.Task[Protego | Refused] | None = None
    users: int = 0
    _next: float = field(default=0.0)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait until the host may be asked."""
        async with self.connections:
            now = asyncio.get_running_loop().time()
            starts = max(now, self._next)
            self._next = starts + self.interval
            if starts > now:
                await asyncio.sleep(starts - now)
            yield

    def pause(self, seconds: float) -> None:
        """Ask nothing for so long."""
        self._next = max(self._next, asyncio.get_running_loop().time() + seconds)

    def check(self, rules: Protego | Refused, url: httpx2.URL, longest: float) -> None:
        """Keep to what robots.txt says (RFC 9309) and to its Crawl-delay, `longest` s at most. Raises Refused."""
        if isinstance(rules, Refused):
            raise Refused(rules.code, rules.reason)
        if not rules.can_fetch(str(url), AGENT):
            raise Refused("robots_disallowed")
        self.interval = max(self.interval, min(rules.crawl_delay(AGENT) or 0.0, longest))


class Hosts:
    """The hosts that were met lately. connect: makes a pool of so many connections; idle: connections kept unused."""

    def __init__(self, per_host: int, requests_per_second: float | None, idle: int, connect: Connect) -> None:
        self._per_host, self._most_unused, self._connect = per_host, idle // per_host, connect
        self._interval = 1 / requests_per_second if requests_per_second else 0.0
        self._known: dict[Origin, Host] = {}
        self._connected: dict[Origin, Host] = {}  # the least lately used first

    @asynccontextmanager
    async def of(self, url: httpx2.URL) -> AsyncIterator[Host]:
        """The host of a URL, which is kept while it is in use."""
        origin = (url.scheme, url.host, url.port)
        if origin not in self._known:
            pool = self._connect(self._per_host)
            self._known[origin] = Host(pool, asyncio.Semaphore(self._per_host), self._interval)
        host = self._known[origin]
        self._connected.pop(origin, None)
        self._connected[origin] = host
        host.users += 1
        try:
            yield host
        finally:
            host.users -= 1
            await self._forget()

    async def _forget(self) -> None:
        """Close the connections of the hosts that were unused for longest; forget hosts if they are many."""
        unused = [origin for origin, host in self._connected.items() if not host.users]
        for host in [self._connected.pop(origin) for origin in unused[: max(0, len(unused) - self._most_unused)]]:
            if not host.users:  # nobody came while the others were closed
                await host.pool.aclose()
        if len(self._known) > MOST_HOSTS:
            self._known = {name: host for name, host in self._known.items() if name in self._connected}

    async def close(self) -> None:
        """Close all connections."""
        for host in self._connected.values():
            await host.pool.aclose()
