"""Ask for links: politely, safely, and not for ever."""

import asyncio
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import TracebackType

import httpcore2
import httpx2
from protego import Protego
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, wait_random_exponential

from stages.collect.addresses import CheckedBackend, Resolve, resolve
from stages.collect.answers import (
    AGENT,
    HEAD,
    Answer,
    Link,
    Refused,
    decoder,
    forbids,
    is_picture,
    retry_after,
    web_url,
)
from stages.collect.hosts import Host, Hosts
from stages.collect.params import Urls

ROBOTS_BYTES = 500 * 1024  # of robots.txt that are read, and hops to it: RFC 9309, 2.5 and 2.3.1.2
ROBOTS_REDIRECTS = 5
SHORT = 16 * 1024  # bytes
REDIRECTS = (301, 302, 303, 307, 308)
AHEAD = 8  # links under way for each of `concurrency`: those of a slow host don't keep the others waiting
Asks = Callable[[str], bool]


def every_host(_: str) -> bool:
    """One process asks them all."""
    return True


def fetch_all(
    source: Urls,
    links: Iterator[Link | None],
    keep: Callable[[Link, Answer | Link], None],
    resolve: Resolve = resolve,
    asks: Asks = every_host,
) -> None:
    """Ask for each link; `keep` is told what came of it, in the order of the answers. None: let the others go on."""

    async def run() -> None:
        async with Fetcher(source, resolve, asks) as fetcher:

            async def work() -> None:
                for link in links:
                    if link is None:
                        await asyncio.sleep(0)
                    else:
                        keep(link, await fetcher.fetch(link))

            await asyncio.gather(*(work() for _ in range(AHEAD * source.concurrency)))

    with _few_collections():
        asyncio.run(run())


@contextmanager
def _few_collections() -> Iterator[None]:
    """Look for cycles a thirtieth as often: requests make many objects and few cycles. It saves a sixth of the time."""
    before = gc.get_threshold()
    gc.set_threshold(20_000, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


class Fetcher:
    """One pool of connections; an async context manager. resolve: finds the addresses of a name.

    asks: which hosts may be asked for pictures, after a redirect too; others are for another fetcher.
    """

    def __init__(self, source: Urls, resolve: Resolve = resolve, asks: Asks = every_host) -> None:
        self._source = source
        self._asks = asks
        self._slots = asyncio.Semaphore(source.concurrency)
        agent = f"{AGENT} (+{source.contact})"
        self._headers = [(b"User-Agent", agent.encode()), (b"Accept", b"*/*"), (b"Accept-Encoding", b"identity")]
        # Pools themselves, not httpx2's client: a client takes no network backend, reads proxies from the
        # environment, follows redirects and keeps cookies. One a host: a pool looks at all of its connections
        # for each request.
        connect = partial(
            httpcore2.AsyncConnectionPool,
            httpx2.create_ssl_context(),
            None,
            keepalive_expiry=15.0,
            http2=True,
            network_backend=CheckedBackend(source.allow_hosts, resolve),
        )
        self._hosts = Hosts(source.per_host, source.requests_per_second, source.concurrency, connect)
        self._backoff = wait_random_exponential(multiplier=source.backoff, max=source.longest_wait)

    async def __aenter__(self) -> "Fetcher":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._hosts.close()

    async def fetch(self, link: Link) -> Answer | Link:
        """The picture behind a link, why there is none, or the link as it goes on at a host that isn't asked here.

        Nothing that a server does can raise.
        """
        try:
            came: bytes | tuple[str, int] = await self._retrying()(self._picture, web_url(link.at), link.redirects)
        except Refused as refused:
            return Answer(refused.code, refused.reason)
        return Answer(data=came) if isinstance(came, bytes) else Link(link.url, *came)

    def _retrying(self) -> AsyncRetrying:
        """Exponential backoff with full jitter, for what may pass; a wait that a server asks for is kept to."""
        return AsyncRetrying(
            retry=retry_if_exception(self._may_retry),
            wait=self._wait,
            stop=stop_after_attempt(self._source.retries + 1),
            reraise=True,
        )

    def _may_retry(self, error: BaseException) -> bool:
        return isinstance(error, Refused) and error.again and error.wait <= self._source.longest_wait

    def _wait(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        return max(self._backoff(state), error.wait if isinstance(error, Refused) else 0.0)

    async def _picture(self, url: httpx2.URL, redirects: int) -> bytes | tuple[str, int]:
        """One try: the body at the end of the redirects, each checked like the first URL. Raises Refused.

        Or where they leave the hosts that are asked here, and how many more may be followed.
        """
        left = self._source.timeout
        for more in range(redirects, -1, -1):
            async with self._hosts.of(url) as host:
                if self._source.obey_robots:
                    host.check(await self._rules(host, url), url, self._source.longest_wait)
                body, moved, left = await self._ask(host, url, self._source.most_bytes, left, picture=True)
            if moved is None:
                return body
            if more and not self._asks(moved.host):
                return str(moved), more - 1
            url = moved
        raise Refused("too_many_redirects")

    async def _rules(self, host: Host, url: httpx2.URL) -> Protego | Refused:
        """robots.txt of a host, asked for once (RFC 9309, 2.3.1)."""
        if host.rules is None:
            host.rules = asyncio.create_task(self._read_rules(url.join("/robots.txt")))
        return await asyncio.shield(host.rules)

    async def _read_rules(self, url: httpx2.URL) -> Protego | Refused:
        """The rules; none where the answer is 4xx; why nothing may be asked where it is 429, 5xx or doesn't come."""
        try:
            return Protego.parse((await self._retrying()(self._robots, url)).decode("utf-8", errors="replace"))
        except Refused as refused:
            if refused.code.startswith("http_4") and not refused.again:
                return Protego.parse("")
            known = refused.code in ("dns_failure", "private_address")  # so it is with whatever lies there
            return refused if known else Refused("robots_unreachable", refused.code)

    async def _robots(self, url: httpx2.URL) -> bytes:
        left = self._source.timeout
        for _ in range(ROBOTS_REDIRECTS + 1):
            async with self._hosts.of(url) as host:
                body, moved, left = await self._ask(host, url, ROBOTS_BYTES, left, picture=False)
            if moved is None:
                return body
            url = moved
        raise Refused("too_many_redirects")

    async def _ask(
        self, host: Host, url: httpx2.URL, most: int, left: float, *, picture: bool
    ) -> tuple[bytes, httpx2.URL | None, float]:
        """The body or where it moved to, and what is left of `left` seconds; waiting for a turn isn't counted."""
        clock = asyncio.get_running_loop().time
        async with host.turn(), self._slots:
            began = clock()
            try:
                async with asyncio.timeout(left):
                    body, moved = await self._exchange(host, url, most, picture=picture)
            except Refused:
                raise
            except TimeoutError:
                raise Refused("timeout") from None
            except Exception as error:  # h11, h2 and ssl raise whatever they like on odd answers
                raise Refused("connection_failed") from error
            return body, moved, left - (clock() - began)

    async def _exchange(
        self, host: Host, url: httpx2.URL, most: int, *, picture: bool
    ) -> tuple[bytes, httpx2.URL | None]:
        """One request and its answer."""
        target = httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
        request = httpcore2.Request("GET", target, headers=[(b"Host", url.netloc), *self._headers])
        response = await host.pool.handle_async_request(request)
        try:
            headers = httpx2.Headers(response.headers)
            if picture and (directive := forbids(headers.get_list("x-robots-tag"), self._source.noai)):
                raise Refused("noai", directive)
            if 200 <= response.status < 300:
                return await _read(response, headers, most, picture=picture), None
            await _drain(response, headers)
            if response.status in REDIRECTS and "location" in headers:
                return b"", _moved(url, headers["location"])
            wait = retry_after(headers.get("retry-after")) if response.status in (429, 503) else 0.0
            host.pause(min(wait, self._source.longest_wait))
            raise Refused(f"http_{response.status}", wait=wait)
        finally:
            await response.aclose()


def _moved(url: httpx2.URL, location: str) -> httpx2.URL:
    try:
        return web_url(str(url.join(location)))
    except (httpx2.InvalidURL, ValueError):
        raise Refused("bad_url", "redirect") from None


def _size(headers: httpx2.Headers) -> int | None:
    """Content-Length, if it is told and sane."""
    told = headers.get("content-length", "")
    return int(told) if told.isascii() and told.isdigit() and len(told) < 20 else None


async def _drain(response: httpcore2.Response, headers: httpx2.Headers) -> None:
    """Read a short body to its end: the connection can be used again then."""
    size = _size(headers)
    if size is not None and size <= SHORT:
        async for _ in response.aiter_stream():
            pass


async def _read(response: httpcore2.Response, headers: httpx2.Headers, most: int, *, picture: bool) -> bytes:
    """The body, decoded. A picture of more than `most` bytes is refused, robots.txt cut there; before decoding too."""
    if picture and (_size(headers) or 0) > most:
        raise Refused("too_large")
    decode, body, read, checked = decoder(headers.get("content-encoding", "").lower()), bytearray(), 0, not picture
    async for piece in response.aiter_stream():
        read += len(piece)
        body += decode(piece, most + 1 - len(body))
        if not checked and len(body) >= HEAD:
            _check(body)
            checked = True
        if max(read, len(body)) > most:
            if picture:
                raise Refused("too_large")
            return bytes(body[:most])
    if not checked:
        _check(body)
    return bytes(body)


def _check(body: bytearray) -> None:
    """Raises Refused unless it begins like a picture: what the server says of its kind isn't asked."""
    if not is_picture(bytes(body[:HEAD])):
        raise Refused("not_a_picture" if body else "empty_file")
