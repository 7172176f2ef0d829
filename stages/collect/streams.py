"""A connection for httpcore's pool on asyncio's own streams.

Its backend on anyio starts and stops the reading of a socket for each piece and asks the system of each idle
connection whether it was closed: a third of the time of a download (benchmarks/collect_urls.py).
"""

import asyncio
import ssl
from typing import Any

import httpcore2

AHEAD = 256 * 1024  # bytes read before they are asked for


class Stream(httpcore2.AsyncNetworkStream):
    """One connection. Timeouts are kept by the caller; what the network does wrong raises OSError."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002 - see above
        return await self._reader.read(max_bytes)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002 - see above
        if buffer:
            self._writer.write(buffer)
            await self._writer.drain()

    async def aclose(self) -> None:
        self._writer.transport.abort()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002 - see above
    ) -> "Stream":
        try:
            await self._writer.start_tls(ssl_context, server_hostname=server_hostname)
        except BaseException:
            await self.aclose()
            raise
        return self

    def get_extra_info(self, info: str) -> Any:
        """What the pool asks for: ssl_object (None without TLS), and is_readable: for idle ones, whether it ended."""
        if info == "is_readable":
            return self._reader.at_eof() or self._reader.exception() is not None
        return self._writer.get_extra_info(info)


async def connect(address: str, port: int) -> Stream:
    """A connection to an IP address. Raises OSError."""
    return Stream(*await asyncio.open_connection(address, port, limit=AHEAD))
