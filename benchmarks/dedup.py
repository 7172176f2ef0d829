"""Exact search for near-duplicates beside imagededup's brute force, one core.

    make peers && python -m benchmarks.dedup [runs]

One million 64-bit hashes at radius 4, a tenth of them neighbours of others: seconds and peak memory. imagededup is
timed at 10,000 and 20,000, and its seconds at one million follow from its own growth between the two. Then recall
and precision beside brute force on 50,000, and seconds a hash from 1e5 to 3e6. The last line's ratio: how many
times faster ours is at one million.
"""

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from stages.clean.duplicates import pairs_within

ROOT = Path(__file__).parents[1]
PEER = ROOT / ".peers" / "imagededup" / "bin" / "python"
RADIUS = 4
THEIRS = """
import sys, time
import numpy as np
from imagededup.methods import PHash
hashes = np.load(sys.argv[1])
named = {str(number): f"{value:016x}" for number, value in enumerate(hashes.tolist())}
start = time.perf_counter()
found = PHash(verbose=False).find_duplicates(encoding_map=named, max_distance_threshold=4, num_dist_workers=0)
print(sum(map(len, found.values())) // 2, time.perf_counter() - start)
"""
OURS = """
import resource, sys, time
import numpy as np
from stages.clean.duplicates import pairs_within
hashes = np.load(sys.argv[1])
start = time.perf_counter()
pairs = len(pairs_within(hashes, 4)[0])
seconds = time.perf_counter() - start
print(pairs, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9)
"""


def planted(count: int) -> NDArray[np.uint64]:
    """Distinct random hashes; a tenth are others with 1 to 6 bits flipped, so within the radius and just beyond."""
    random = np.random.default_rng(count)
    hashes = random.integers(0, 2**64, count, dtype=np.uint64)
    near = len(hashes[9::10])
    bits = random.random((near, 64), np.float32).argpartition(6, axis=1)[:, :6].astype(np.uint64)  # six, all different
    flips = np.where(np.arange(6) < random.integers(1, 7, (near, 1)), np.uint64(1) << bits, np.uint64(0))
    hashes[9::10] = hashes[8::10][:near] ^ np.bitwise_xor.reduce(flips, axis=1)
    return np.unique(hashes)


def child(python: str | Path, code: str, hashes: NDArray[np.uint64], path: Path) -> list[float]:
    np.save(path, hashes)
    finished = subprocess.run(
        [str(python), "-c", code, str(path)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return [float(word) for word in finished.stdout.split()[-3:]]


def brute_force(hashes: NDArray[np.uint64]) -> set[tuple[int, int]]:
    """Every pair compared."""
    found = set()
    for index in range(len(hashes) - 1):
        near = np.flatnonzero(np.bitwise_count(hashes[index + 1 :] ^ hashes[index]) <= RADIUS)
        found |= {(index, index + 1 + int(other)) for other in near}
    return found


def seconds_for(count: int, runs: int) -> float:
    """Median seconds of pairs_within."""
    hashes, took = planted(count), []
    for _ in range(runs):
        start = time.perf_counter()
        pairs_within(hashes, RADIUS)
        took.append(time.perf_counter() - start)
    return median(took)


def main(runs: int = 5) -> None:
    """Ours and theirs in turn."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "hashes.npy"
        measured = [child(sys.executable, OURS, planted(1_000_000), path) for _ in range(runs)]
        ours, memory = median(run[1] for run in measured), max(run[2] for run in measured)
        theirs = {}
        for count in (10_000, 20_000):
            hashes = planted(count)
            found = [child(PEER, THEIRS, hashes, path) for _ in range(runs)]
            assert {run[-2] for run in found} == {float(len(pairs_within(hashes, RADIUS)[0]))}, "we find the same pairs"
            theirs[count] = median(run[-1] for run in found)
    growth = math.log2(theirs[20_000] / theirs[10_000])
    peer = theirs[20_000] * 50**growth
    hashes = planted(50_000)
    left, right, _ = pairs_within(hashes, RADIUS)
    found_pairs, true_pairs = set(zip(left.tolist(), right.tolist(), strict=True)), brute_force(hashes)
    small, large = seconds_for(100_000, runs), seconds_for(3_000_000, runs)
    for line in (
        {"name": "dedup memory", "ours": round(memory, 3), "peer": 1.0, "ratio": round(1 / memory, 2), "unit": "GB"},
        {"name": "dedup recall", "value": len(found_pairs & true_pairs) / len(true_pairs), "pairs": len(true_pairs)},
        {"name": "dedup precision", "value": len(found_pairs & true_pairs) / len(found_pairs)},
        {"name": "dedup growth", "at 1e5": small / 1e5 * 1e6, "at 3e6": large / 3e6 * 1e6, "unit": "us/hash"},
        {"name": "dedup growth, times", "value": round(large / 30 / small, 2), "unit": "at most 2"},
        {"name": "imagededup", "10,000": round(theirs[10_000], 2), "20,000": round(theirs[20_000], 2), "unit": "s"},
        {"name": "imagededup growth", "value": round(growth, 2), "unit": "exponent"},
        {"name": "dedup", "ours": round(ours, 2), "peer": round(peer, 1), "ratio": round(peer / ours, 1), "unit": "s"},
    ):
        print(json.dumps(line))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
