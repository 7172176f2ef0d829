"""Seconds to fetch 2,000 pictures and 100 bad links from a server on this machine: ours and img2dataset.

    make peers && python -m benchmarks.collect_urls
    python -m benchmarks.collect_urls ours 128 6000

The second line is ours alone, by links at once and pictures; where DARKROOM_ENGINE says.
The server is one process and 8 hosts (addresses). Both ask 32 links at once, ours 4 of a host as is its default, once
each, in one process, and keep the bytes as they came. Ours counts the whole stage
after its imports: robots.txt, the store, shards and failures. img2dataset counts what it calls a shard's duration,
after imports, start of its process and reading of the table; its decoding and EXIF are switched off. Prints a JSON
line a run and last {"name", "ours", "peer", "ratio", "unit"}: medians of seconds; ratio above 1: ours is faster.
"""

import asyncio
import io
import itertools
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

ROOT = Path(__file__).parents[1]
PEER = ROOT / ".peers" / "img2dataset" / "bin" / "python"
HOSTS, RUNS, TIMEOUT = 8, 5, 10
ALONE = sys.argv[1:2] == ["ours"]
CONCURRENCY, PICTURES = map(int, sys.argv[2:4]) if ALONE else (32, 2_000)
ADDRESSES = [f"127.0.0.{number}" for number in range(1, HOSTS + 1)]
BAD = {"missing": 40, "broken": 20, "html": 20, "cut": 15, "closed": 5}  # kinds of bad links, and how many

OURS = """
import sys, time
from pathlib import Path
from stages.collect.params import CollectParams
from stages.collect.run import main
concurrency, timeout = map(int, sys.argv[1:])
source = {"kind": "urls", "name": "links", "path": "links.csv", "contact": "bench@localhost.localdomain",
          "concurrency": concurrency, "per_host": concurrency // 8, "timeout": float(timeout), "retries": 0,
          "allow_hosts": [f"127.0.0.{number}" for number in range(1, 9)]}
params = CollectParams.model_validate({"sources": [source]})
began = time.perf_counter()
main(params, Path(), Path("raw"), Path("metrics.json"))
print(time.perf_counter() - began)
"""
THEIRS = """
import sys
import img2dataset
if __name__ == "__main__":
    concurrency, timeout = map(int, sys.argv[1:])
    img2dataset.download(url_list="links.csv", input_format="csv", url_col="URL", caption_col="TEXT",
                         output_folder="out", output_format="webdataset", processes_count=1, thread_count=concurrency,
                         timeout=timeout, retries=0, resize_mode="no", disable_all_reencoding=True, extract_exif=False)
"""


def bodies() -> list[bytes]:
    """JPEGs of 30 to 100 kB."""
    made = []
    for side in range(150, 282, 4):
        noise = np.random.default_rng(side).integers(0, 256, (side, side, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(noise).save(buffer, "JPEG", quality=90)
        made.append(buffer.getvalue())
    return made


class Answers(asyncio.Protocol):
    """Just enough of HTTP/1.1 to be no bottleneck: keep-alive, GET, no bodies of requests."""

    pictures = bodies() if sys.argv[1:] == ["serve"] else []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport, self.received = transport, b""

    def data_received(self, data: bytes) -> None:
        self.received += data
        while b"\r\n\r\n" in self.received:
            head, _, self.received = self.received.partition(b"\r\n\r\n")
            kind, _, number = head.split(b" ", 2)[1].decode()[1:].partition("/")
            status, body = "404 Not Found", b""
            if kind in ("picture", "cut"):  # four more bytes make each its own picture
                status, body = "200 OK", self.pictures[int(number) % len(self.pictures)] + int(number).to_bytes(4)
            elif kind == "broken":
                status = "500 Internal Server Error"
            elif kind == "html":
                status, body = "200 OK", b"<html>This picture has moved.</html>"
            close = "Connection: close\r\n" if b"connection: close" in head.lower() else ""
            told = f"HTTP/1.1 {status}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(body)}\r\n{close}\r\n"
            self.transport.write(told.encode() + (body[:9_999] if kind == "cut" else body))
            if close or kind == "cut":
                self.transport.close()


async def serve() -> None:
    """Print the ports, then answer until killed."""
    loop = asyncio.get_running_loop()
    servers = [await loop.create_server(Answers, address, 0, backlog=1024) for address in ADDRESSES]
    print(*(server.sockets[0].getsockname()[1] for server in servers), flush=True)
    await asyncio.gather(*(server.serve_forever() for server in servers))


def links(ports: list[int]) -> pd.DataFrame:
    """The table, good and bad mixed in an order that is the same each time."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        closed = unused.getsockname()[1]
    paths = [f"picture/{number}" for number in range(PICTURES)]
    paths += [f"{kind}/{number}" for kind, count in BAD.items() for number in range(count)]
    rows = [
        {
            "URL": f"http://{address}:{closed if path.startswith('closed') else port}/{path}",
            "TEXT": f"picture, {path}",
        }
        for path, (address, port) in zip(paths, itertools.cycle(zip(ADDRESSES, ports, strict=True)), strict=False)
    ]
    return pd.DataFrame(rows).sample(frac=1, random_state=0)


def run(python: Path | str, script: str, table: pd.DataFrame, folder: Path) -> str:
    table.to_csv(folder / "links.csv", index=False)
    (folder / ".dvc").mkdir()
    (folder / "script.py").write_text(script)
    finished = subprocess.run(
        [python, "script.py", str(CONCURRENCY), str(TIMEOUT)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_ALBUMENTATIONS_UPDATE": "1", "WANDB_MODE": "disabled"},
        capture_output=True,
        text=True,
        check=False,
    )
    if finished.returncode:
        raise SystemExit(finished.stderr)
    return finished.stdout


def ours(table: pd.DataFrame, folder: Path) -> tuple[float, dict[str, int]]:
    """Seconds, and how many links became what; every link must have become something."""
    told = run(sys.executable, OURS, table, folder)
    failed = pd.read_parquet(folder / "raw" / "failures.parquet")["code"].to_list()
    rows = sum(len(pd.read_parquet(path, columns=["key"])) for path in (folder / "raw" / "links").glob("*.parquet"))
    expected = {"http_404": BAD["missing"], "http_500": BAD["broken"], "not_a_picture": BAD["html"]}
    assert Counter(failed) == expected | {"connection_failed": BAD["cut"], "robots_unreachable": BAD["closed"]}
    assert rows + len(failed) == len(table)
    return float(told.split()[-1]), {"rows": rows, "failures": len(failed)}


def theirs(table: pd.DataFrame, folder: Path) -> tuple[float, dict[str, int]]:
    """Seconds, and how many links became what, as its statistics have it."""
    run(PEER, THEIRS, table, folder)
    told = json.loads((folder / "out" / "00000_stats.json").read_text())
    assert told["count"] == len(table)
    failures = told["failed_to_download"] + told["failed_to_resize"]
    assert told["successes"] >= PICTURES, "it could not fetch what we could"
    return told["duration"], {"rows": told["successes"], "failures": failures}


def main() -> None:
    """One run of each in turn; the median counts."""
    sides = {"ours": ours} if ALONE else {"ours": ours, "img2dataset": theirs}
    if not ALONE and not PEER.exists():
        raise SystemExit(f"{PEER}: is missing; run `make peers`")
    server = subprocess.Popen([sys.executable, __file__, "serve"], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout
        table = links([int(port) for port in server.stdout.readline().split()])
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(RUNS):
            for name, fetch in sides.items():
                with tempfile.TemporaryDirectory() as folder:
                    took, became = fetch(table, Path(folder))
                seconds[name].append(took)
                print(json.dumps({"name": name, "value": round(took, 2), "unit": "s", **became}), flush=True)
    finally:
        server.kill()
        server.wait()
    medians = [float(np.median(each)) for each in seconds.values()]
    line: dict[str, str | float] = {"name": "collect urls", "ours": round(medians[0], 2)}
    if not ALONE:
        line |= {"peer": round(medians[1], 2), "ratio": round(medians[1] / medians[0], 3)}
    print(json.dumps({**line, "unit": "s"}))


if __name__ == "__main__":
    asyncio.run(serve()) if sys.argv[1:] == ["serve"] else main()
