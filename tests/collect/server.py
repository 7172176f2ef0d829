"""Web servers on this machine: one that misbehaves as asked, and counts what it is asked for; one with TLS."""

import asyncio
import gzip
import socket
import ssl
import struct
import threading
import time
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import unquote

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import RequestReceived

from tests.pictures import drawing, encoded

PICTURE = encoded(drawing(0))
TYPED = [("Content-Type", "image/png")]


class SecureServer:
    """A context manager: HTTP/2 over TLS for the name `host`, on this machine. names: what clients asked for (SNI)."""

    def __init__(self, host: str, folder: Path) -> None:
        self.names: list[str | None] = []
        self.requests = self.connections = 0
        self.certificate, key = folder / "certificate.pem", folder / "key.pem"
        secret = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        now = datetime.now(UTC)
        made = x509.CertificateBuilder(name, name, secret.public_key(), 1, now, now + timedelta(days=1))
        made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        self.certificate.write_bytes(made.sign(secret, hashes.SHA256()).public_bytes(Encoding.PEM))
        key.write_bytes(secret.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(self.certificate, key)
        self._tls.set_alpn_protocols(["h2"])
        self._tls.sni_callback = lambda _, asked, __: self.names.append(asked)
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> "SecureServer":
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()

    async def _run(self) -> None:
        self._loop, self._over, self._serving = asyncio.get_running_loop(), asyncio.Event(), set[asyncio.Task[Any]]()
        async with await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls) as server:
            self.port = server.sockets[0].getsockname()[1]
            self._ready.set()
            await self._over.wait()
        await asyncio.gather(*self._serving)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Every path but robots.txt is a picture of its own."""
        task = asyncio.current_task()
        assert task
        self._serving.add(task)
        self.connections += 1
        with suppress(ConnectionError):
            await self._answer(reader, writer)
        writer.close()
        self._serving.remove(task)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = H2Connection(H2Configuration(client_side=False))
        connection.initiate_connection()
        writer.write(connection.data_to_send())
        while data := await reader.read(2**16):
            for event in connection.receive_data(data):
                if isinstance(event, RequestReceived):
                    assert event.headers
                    assert event.stream_id
                    path = dict(event.headers)[b":path"].decode()
                    status, body = ("404", b"") if path == "/robots.txt" else ("200", PICTURE + path.encode())
                    self.requests += 1
                    connection.send_headers(event.stream_id, [(":status", status)])
                    connection.send_data(event.stream_id, body, end_stream=True)
            writer.write(connection.data_to_send())


class Server:
    """A context manager. asked: how often each path was. busiest: requests at once, at most. hosts: Host headers.

    address: of this machine's own, 127.0.0.0/8: each is a host by itself.
    """

    def __init__(self, address: str = "127.0.0.1") -> None:
        self.asked, self.hosts, self.agents = Counter[str](), set[str](), set[str]()
        self.robots = (404, "")
        self.delay = 0.0  # s before every picture
        self.now = self.busiest = 0
        self.lock = threading.Lock()

        class Handler(Answers):
            server_state = self

        class Quiet(ThreadingHTTPServer):
            daemon_threads, request_queue_size = True, 128

            def handle_error(self, request: Any, client_address: Any) -> None:
                """Clients hang up on it: that is what it is for."""

        self._server = Quiet((address, 0), Handler)
        self.address = address
        self.port = self._server.server_address[1]

    def __enter__(self) -> "Server":
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def url(self, path: str, host: str = "") -> str:
        return f"http://{host or self.address}:{self.port}/{path}"

    @property
    def pictures_asked(self) -> int:
        return self.asked.total() - self.asked["/robots.txt"]


class Answers(BaseHTTPRequestHandler):
    """`/kind/argument`: the method `kind` answers."""

    protocol_version = "HTTP/1.1"
    server_state: Server

    def do_GET(self) -> None:
        state = self.server_state
        kind, _, argument = unquote(self.path[1:]).partition("/")
        with state.lock:
            state.asked[self.path] += 1
            state.hosts.add(self.headers["Host"])
            state.agents.add(self.headers["User-Agent"])
            state.now += 1
            state.busiest = max(state.busiest, state.now)
        try:
            getattr(self, kind.replace("-", "_").replace(".", "_"))(argument)
        finally:
            with state.lock:
                state.now -= 1

    def answer(self, status: int, body: bytes = b"", headers: list[tuple[str, str]] | None = None) -> None:
        self.send_response(status)
        for name, value in headers or []:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def robots_txt(self, _: str) -> None:
        status, text = self.server_state.robots
        self.answer(status, text.encode())

    def picture(self, number: str) -> None:
        time.sleep(self.server_state.delay)
        self.answer(200, encoded(drawing(int(number), (24, 24))), TYPED)

    def slow_picture(self, number: str) -> None:
        time.sleep(0.2)
        self.picture(number)

    def wrong_type(self, _: str) -> None:
        self.answer(200, PICTURE, [("Content-Type", "text/plain")])

    def html(self, _: str) -> None:
        self.answer(200, b"<html>Buy now</html>", TYPED)

    def empty(self, _: str) -> None:
        self.answer(200, b"", TYPED)

    def missing(self, _: str) -> None:
        self.answer(404)

    def flaky(self, _: str) -> None:
        self.answer(*((500, b"") if self.server_state.asked[self.path] < 3 else (200, PICTURE)))

    def broken(self, _: str) -> None:
        self.answer(500)

    def busy(self, seconds: str) -> None:
        """429 the first time, with Retry-After in seconds."""
        again = self.server_state.asked[self.path] > 1
        self.answer(200 if again else 429, PICTURE if again else b"", [("Retry-After", seconds)])

    def away_until(self, seconds: str) -> None:
        """503, with Retry-After as a date."""
        self.answer(503, headers=[("Retry-After", formatdate(time.time() + float(seconds), usegmt=True))])

    def drip(self, _: str) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(PICTURE)))
        self.end_headers()
        for position in range(len(PICTURE)):
            self.wfile.write(PICTURE[position : position + 1])
            time.sleep(0.05)

    def huge(self, _: str) -> None:
        """Says so, and need not send it."""
        self.send_response(200)
        self.send_header("Content-Length", str(10**12))
        self.end_headers()
        self.wfile.write(PICTURE)

    def endless(self, _: str) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        piece = PICTURE + bytes(2**16)
        while True:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))

    def bomb(self, _: str) -> None:
        """100 MB in 100 kB."""
        self.answer(200, gzip.compress(PICTURE + bytes(10**8), 1), [("Content-Encoding", "gzip")])

    def gzipped(self, _: str) -> None:
        self.answer(200, gzip.compress(PICTURE), [("Content-Encoding", "gzip")])

    def brotli(self, _: str) -> None:
        self.answer(200, PICTURE, [("Content-Encoding", "br")])

    def half(self, _: str) -> None:
        """Ends before Content-Length."""
        self.send_response(200)
        self.send_header("Content-Length", str(2 * len(PICTURE)))
        self.end_headers()
        self.wfile.write(PICTURE)
        self.close_connection = True

    def dropped(self, _: str) -> None:
        """The connection is reset midway."""
        self.send_response(200)
        self.send_header("Content-Length", str(len(PICTURE)))
        self.end_headers()
        self.wfile.write(PICTURE[:100])
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True

    def gibberish(self, _: str) -> None:
        self.wfile.write(b"\0\1\2 what?\r\n\r\n")
        self.close_connection = True

    def loop(self, _: str) -> None:
        self.answer(302, headers=[("Location", self.path)])

    def to(self, location: str) -> None:
        self.answer(301, headers=[("Location", location)])

    def tagged(self, tag: str) -> None:
        self.answer(200, PICTURE, [("X-Robots-Tag", tag)])

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
        """Say nothing."""
