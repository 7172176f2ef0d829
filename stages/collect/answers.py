"""What comes of a URL: a picture, or a code that says why there is none."""

import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx2

AGENT = "darkroom"  # the product token of the User-Agent, which robots.txt and X-Robots-Tag may name
HEAD = 64  # bytes that tell a picture's kind
LOST = ("timeout", "connection_failed")  # tried again by the same run, like the answers 408, 429 and 5xx
PASSING = (*LOST, "dns_failure", "robots_unreachable")  # tried again by the next run; other codes are final

VALUED = ("unavailable_after", "max-snippet", "max-image-preview", "max-video-preview")  # X-Robots-Tag: name: value
STARTS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*")


class Refused(Exception):  # noqa: N818 - most are no errors of the program
    """There is no picture: a code, a reason that doesn't depend on time or order, the seconds a server asks to wait."""

    def __init__(self, code: str, reason: str = "", wait: float = 0.0) -> None:
        super().__init__(code, reason)
        self.code, self.reason, self.wait = code, reason, wait

    @property
    def again(self) -> bool:
        """Whether the same run may ask again."""
        return self.code in (*LOST, "http_408", "http_429") or self.code.startswith("http_5")


@dataclass(frozen=True)
class Answer:
    """code: ok, or why `data` is empty. reason: what may help to mend it."""

    code: str = "ok"
    reason: str = ""
    data: bytes = b""

    @property
    def passing(self) -> bool:
        """Whether another run may have more luck."""
        return self.code in PASSING or Refused(self.code).again


@dataclass(frozen=True)
class Link:
    """url: as a table has it. at: where to ask; redirects: that may be followed from there."""

    url: str
    at: str
    redirects: int


def web_url(text: str) -> httpx2.URL:
    """The URL without its fragment. Raises Refused `empty_url`, `bad_url` (credentials too), `bad_scheme`."""
    if not text:
        raise Refused("empty_url")
    try:
        url = httpx2.URL(text)
        url = url.copy_with(fragment=None) if url.fragment else url
    except (httpx2.InvalidURL, ValueError):
        raise Refused("bad_url") from None
    if url.scheme not in ("http", "https"):
        raise Refused("bad_scheme", url.scheme)
    if not url.host or url.userinfo or not 0 < (url.port or 80) < 2**16:
        raise Refused("bad_url")
    return url


def is_picture(head: bytes) -> bool:
    """Whether a file of a kind that is read here begins with these bytes (HEAD of them, or all that there are)."""
    if head[4:8] == b"ftyp":  # ISO 14496-12: the brands of the box, four bytes each
        brands = head[8 : int.from_bytes(head[:4], "big")]
        return b"avif" in brands or b"avis" in brands
    bitmap = head[:2] == b"BM" and head[6:10] == bytes(4)
    return head.startswith(STARTS) or bitmap or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")


def forbids(tags: Iterable[str], honoured: Iterable[str]) -> str:
    """The first honoured directive in X-Robots-Tag headers that is meant for us; empty if there is none.

    A header is a list of directives with an agent's name before those that are for it alone: `noai` is for
    everyone, `otherbot: noindex, nofollow` is not for us; `none` is noindex and nofollow
    (developers.google.com/search/docs/crawling-indexing/robots-meta-tag).
    """
    wanted = {name.lower() for name in honoured}
    for tag in tags:
        agent = "*"
        for part in tag.lower().split(","):
            name, colon, rest = (piece.strip() for piece in part.partition(":"))
            if colon and name not in VALUED:
                agent, name = name, rest
            name = "noindex" if name == "none" else name
            if name in wanted and agent in ("*", AGENT):
                return name
    return ""


def retry_after(value: str | None, now: datetime | None = None) -> float:
    """Seconds that a Retry-After header asks for (RFC 9110, 10.2.3: a number, or a date); 0 if it says nothing."""
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        until = parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return max(0.0, (until - (now or datetime.now(UTC))).total_seconds())


def decoder(encoding: str) -> Callable[[bytes, int], bytes]:
    """What undoes a Content-Encoding, a piece at a time and never more than so many bytes.

    None is asked for, but some servers always compress. Raises Refused `bad_encoding` for others than gzip and deflate.
    """
    if encoding in ("", "identity"):
        return lambda piece, _: piece
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise Refused("bad_encoding", encoding)
    inflate = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # of either kind, by its header

    def decode(piece: bytes, most: int) -> bytes:
        try:
            return inflate.decompress(inflate.unconsumed_tail + piece, most)
        except zlib.error:
            raise Refused("bad_encoding", encoding) from None

    return decode
