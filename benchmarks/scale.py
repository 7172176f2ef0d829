"""What more pictures and more workers cost, on this machine; docs/scale.md computes with what it says.

    python -m benchmarks.scale [inspect|preprocess|ray|duplicates|rows|dvc] [runs]

inspect, preprocess: 4,000 JPEGs of 0.5 MP, to 256 px, by two processes beside one; in ten shards, of which the largest
lets 1.88 be reached at most. ray: both on 2,000, to 512 px, by Ray on this machine's cores beside this machine's own
processes. duplicates: the search at radius 4 from 1e5 to 1e7 hashes, a tenth of them neighbours of others. rows:
seconds and memory that each further picture costs a stage that holds a table of all: clean, encode (all known), train
(one step). dvc: what each further file and byte costs `dvc add`, and `dvc status` when nothing has changed. Medians of
`runs`; start-up is counted, but not in what a further one costs. Prints JSON lines {"name", "ours", "peer", "ratio",
"unit"}, without a name all of them, `preprocess` last.
"""

import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from benchmarks import clean, reuse
from benchmarks.dedup import planted
from benchmarks.inspect_pictures import numbered, photograph
from benchmarks.merge import peak_of
from stages.base.random_families import build
from stages.clean.run import MANIFEST
from stages.core.files import folder_digest
from stages.core.pairs import CAPTIONS, RAW, Pair, ShardWriter, shards_below, write_table

ROOT = Path(__file__).parents[1]
RADIUS = 4
COMMANDS = {
    "inspect": "--raw raw --captions captions.parquet --out inspected",
    "clean": "--inspected inspected --scores s.parquet --review review.csv --out clean --metrics m.json --plot p.csv",
    "preprocess": "--raw raw --clean clean --conditions conditions --out processed --metrics m.json",
    "encode": "--processed processed --base base --out latents --metrics m.json",
    "train": f"--compute {ROOT}/compute/one.yaml --latents latents --processed processed --base base --out trained "
    "--live live",
}
SEARCH = f"""
import sys, time, numpy as np
from stages.clean.duplicates import pairs_within
hashes = np.load(sys.argv[1])
start = time.perf_counter()
print(len(pairs_within(hashes, {RADIUS})[0]), time.perf_counter() - start)
"""


@dataclass(frozen=True)
class Cost:
    """Of a program: seconds, and the most memory that its first process held, GB; mapped files left out."""

    seconds: float
    memory: float
    said: str


def cost_of(command: list[str], folder: Path, **environment: str) -> Cost:
    """Run it to its end in a folder."""
    began = time.perf_counter()
    environment = os.environ | {"PYTHONPATH": str(ROOT), "DVC_ROOT": "."} | environment
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as child:
        peak = peak_of(child)
        seconds = time.perf_counter() - began
        assert child.stdout
        said = child.stdout.read()
    assert child.returncode == 0, command
    return Cost(seconds, peak * 1024 / 1e9, said)


def stage(name: str, folder: Path, **environment: str) -> Cost:
    """A stage that knows nothing from earlier runs."""
    if name != "encode":
        shutil.rmtree(folder / ".dvc" / "tmp", ignore_errors=True)
    return cost_of([sys.executable, "-m", f"stages.{name}.run", *COMMANDS[name].split()], folder, **environment)


@contextmanager
def project(**sections: dict[str, Any]) -> Iterator[Path]:
    """A folder with params."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / ".dvc").mkdir()
        (folder / "params.yaml").write_text(yaml.safe_dump(sections))
        yield folder


def lay_pictures(folder: Path, count: int) -> None:
    """data/raw and a manifest that keeps all of it."""
    photographs = [photograph(0.5, seed) for seed in range(8)]
    writer = ShardWriter(folder / "raw" / "mine", RAW)
    for number in range(count):
        data = numbered(photographs[number % 8], number)
        pair = Pair(sha256(data).hexdigest(), data, f"{number}.jpg", ["a photograph of nothing"], "mine")
        writer.add(pair.row(), len(data))
    writer.close()
    (folder / "raw" / "sources.json").write_text('["mine"]')
    write_table(pa.Table.from_pylist([], schema=CAPTIONS), folder / "captions.parquet")
    rows = []
    for shard in shards_below(folder / "raw"):
        keys = pq.read_table(shard, columns=["key"]).column("key").to_pylist()
        about = {"source": "mine", "shard": shard.relative_to(folder / "raw").as_posix(), "captions": ["a photograph"]}
        about |= {"repeats": 1, "role": "train", "split": "train"}
        rows += [{**about, "key": key, "row": row} for row, key in enumerate(keys)]
    (folder / "clean").mkdir()
    write_table(pa.Table.from_pylist(rows, schema=MANIFEST), folder / "clean" / "manifest.parquet")


def workers(name: str, out: str, runs: int, count: int = 4000) -> None:
    """Two processes beside one, in turn; the same bytes."""
    took: dict[str, list[float]] = {"1": [], "2": []}
    digests = set()
    with project(inspect={}, preprocess={"resolution": 256}) as folder:
        lay_pictures(folder, count)
        for _ in range(runs):
            for number, seconds in took.items():
                seconds.append(stage(name, folder, DARKROOM_WORKERS=number).seconds)
                digests.add(folder_digest(folder / out))
        written = sum(path.stat().st_size for path in shards_below(folder / out))
    assert len(digests) == 1, "the bytes depend on the number of workers"
    one, two = median(took["1"]), median(took["2"])
    say(f"{name}, 2 workers beside 1", two, one, one / two, "s", pictures=count, bytes=round(written / count))


def ray(runs: int, count: int = 2000) -> None:
    """The same stages on a cluster of this machine alone."""
    from ray.cluster_utils import Cluster

    cores = os.cpu_count() or 1
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": cores, "include_dashboard": False})
    engines = {"local": {}, "ray": {"DARKROOM_ENGINE": "ray", "RAY_ADDRESS": cluster.address}}
    with project(inspect={}, preprocess={"resolution": 512}) as folder:
        lay_pictures(folder, count)
        for name in ("inspect", "preprocess"):
            took: dict[str, list[float]] = {"local": [], "ray": []}
            for _ in range(runs):
                for engine, seconds in took.items():
                    seconds.append(stage(name, folder, **engines[engine]).seconds)
            local, there = median(took["local"]), median(took["ray"])
            say(f"{name}, Ray beside this machine's processes", there, local, local / there, "s", pictures=count)
    cluster.shutdown()


def duplicates(runs: int) -> None:
    """By one process, then by two; how the seconds grow."""
    took: dict[tuple[int, str], float] = {}
    with project() as folder:
        for count in (100_000, 1_000_000, 10_000_000):
            np.save(folder / "hashes.npy", planted(count))
            for number in ("1", "2"):
                command = [sys.executable, "-c", SEARCH, "hashes.npy"]
                costs = [cost_of(command, folder, DARKROOM_WORKERS=number) for _ in range(runs)]
                took[count, number] = median(float(cost.said.split()[1]) for cost in costs)
                memory = max(cost.memory for cost in costs)
                print(
                    json.dumps(
                        {
                            "name": f"near-duplicates of {count:.0e} hashes, {number} workers",
                            "value": round(took[count, number], 2),
                            "unit": "s",
                            "pairs": int(costs[0].said.split()[0]),
                            "GB": round(memory, 3),
                        }
                    )
                )
    exponent = math.log(took[10_000_000, "1"] / took[100_000, "1"]) / math.log(100)
    say("near-duplicates, growth from 1e5 to 1e7", exponent, 2.0, 2 / exponent, "exponent; comparing all pairs: 2")


def rows(runs: int) -> None:
    """Between two sizes: what each further picture costs."""

    def lay_clean(folder: Path, count: int) -> None:
        for name in ("inspected", "clean"):
            shutil.rmtree(folder / name, ignore_errors=True)
        clean.fill(folder, count)

    def lay_encode(folder: Path, count: int) -> None:
        reuse.lay(folder, range(count), 32)
        if not (folder / "base").exists():
            build("tiny", 0).save_pretrained(folder / "base")
        stage("encode", folder)

    params = {"clean": {}, "encode": {"range": 1e9}, "train": {"steps": 1, "preview_every": 0, "warmup_steps": 0}}
    plans: list[tuple[str, Callable[[Path, int], None], int, int]] = [
        ("clean", lay_clean, 50_000, 200_000),
        ("encode", lay_encode, 4_000, 14_000),
    ]
    with project(**params) as folder:
        for name, lay, few, many in plans:
            costs = {}
            for count in (few, many):
                lay(folder, count)
                for each in ("encode", "train") if name == "encode" else (name,):
                    found = [stage(each, folder) for _ in range(runs)]
                    costs[each, count] = median(c.seconds for c in found), max(c.memory for c in found)
            for each in ("encode", "train") if name == "encode" else (name,):
                (short, small), (long, large) = costs[each, few], costs[each, many]
                print(
                    json.dumps(
                        {
                            "name": f"{each}, a further picture",
                            "us": round((long - short) / (many - few) * 1e6, 1),
                            "bytes": round((large - small) / (many - few) * 1e9),
                            "from": few,
                            "to": many,
                        }
                    )
                )


def dvc(runs: int) -> None:
    """Small files, then few large ones; links as the cache is set here."""
    with project() as folder:
        shutil.rmtree(folder / ".dvc")
        for command in (["git", "init", "-q"], ["dvc", "init", "-q"]):
            subprocess.run(command, cwd=folder, check=True)
        figures: dict[str, float] = {}
        for name, files, size in (("none", 1, 1000), ("small", 10_000, 1000), ("large", 20, 50_000_000)):
            added, status = [], []
            for run in range(runs):
                (folder / name).mkdir(exist_ok=True)
                random = np.random.default_rng(run)
                for number in range(files):
                    (folder / name / f"{number:05d}").write_bytes(random.bytes(size))
                added.append(cost_of(["dvc", "add", "-q", name], folder).seconds)
                status.append(cost_of(["dvc", "status", "-q", f"{name}.dvc"], folder).seconds)
                shutil.rmtree(folder / name)
            figures[name], figures[f"{name} status"] = median(added), median(status)
    for label, value, unit in (
        ("dvc add, a further file", (figures["small"] - figures["none"]) / 1e4 * 1e3, "ms"),
        ("dvc add, a further GB", (figures["large"] - figures["none"]) / 1.0, "s"),
        ("dvc status, a further file", (figures["small status"] - figures["none status"]) / 1e4 * 1e3, "ms"),
    ):
        print(json.dumps({"name": label, "value": round(value, 3), "unit": unit}))


def say(name: str, ours: float, peer: float, ratio: float, unit: str, **more: Any) -> None:
    """A line."""
    line = {"name": name, "ours": round(ours, 2), "peer": round(peer, 2), "ratio": round(ratio, 2), "unit": unit}
    print(json.dumps({**line, **more}), flush=True)


PARTS: dict[str, Callable[[int], None]] = {
    "rows": rows,
    "dvc": dvc,
    "duplicates": duplicates,
    "ray": ray,
    "inspect": partial(workers, "inspect", "inspected"),
    "preprocess": partial(workers, "preprocess", "processed"),
}


def main(part: str = "", runs: int = 3) -> None:
    """One part, or each."""
    for each in [part] if part else PARTS:
        PARTS[each](runs)


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(int, sys.argv[2:]))
