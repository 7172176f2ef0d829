"""Peak memory of the stage collect at 2,000 and at 20,000 pictures of a folder, each in a process of its own.

    python -m benchmarks.collect_memory

Prints a JSON line a size and last {"name", "ours", "peer", "ratio", "unit"}: ours is the peak at 20,000, peer
1.2 times that at 2,000, which is the most it may be; ratio above 1: it stays below.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
CHILD = """
import resource
import sys
from pathlib import Path
from stages.collect.params import CollectParams
from stages.collect.run import main
folder = Path(sys.argv[1])
params = CollectParams.model_validate({"sources": [{"kind": "folder", "name": "mine"}]})
main(params, folder, folder / "raw", folder / "metrics.json")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def peak(pictures: int) -> float:
    """MiB that the process had at most, for `pictures` files of 20 kB with a caption each."""
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        mine = Path(name) / "mine"
        for number in range(pictures):
            path = mine / f"{number // 1000:03d}" / f"{number:06d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(random.bytes(20_000))
            path.with_suffix(".txt").write_text(f"picture number {number}, with a caption of some length")
        child = subprocess.run(
            [sys.executable, "-c", CHILD, name], cwd=ROOT, capture_output=True, text=True, check=True
        )
    return float(child.stdout.split()[-1])


def main() -> None:
    """Three runs of each size, the median counts."""
    peaks = {pictures: float(np.median([peak(pictures) for _ in range(3)])) for pictures in (2_000, 20_000)}
    for pictures, mebibytes in peaks.items():
        print(json.dumps({"name": f"collect {pictures} pictures", "value": round(mebibytes, 1), "unit": "MiB"}))
    ours, most = peaks[20_000], 1.2 * peaks[2_000]
    line = {"name": "collect memory", "ours": round(ours, 1), "peer": round(most, 1), "ratio": round(most / ours, 3)}
    print(json.dumps({**line, "unit": "MiB"}))


if __name__ == "__main__":
    main()
