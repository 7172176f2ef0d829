"""The stage inspect beside imagededup's PHash encoding: the same 2,000 JPEGs of 1 to 12 MP, one process each.

    make peers && python -m benchmarks.inspect_pictures [pictures] [runs]

inspect measures all it measures (two hashes, both mirrored, sharpness, contrast, language of captions, ...) and
writes its tables; imagededup computes one hash. Both read their pictures from disk. Ratio above 1: ours is faster.
"""

import io
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]
PEER = ROOT / ".peers" / "imagededup" / "bin" / "python"
MEGAPIXELS = (1, 2, 3, 4, 6, 8, 10, 12)
THEIRS = """
import sys, time
from imagededup.methods import PHash
start = time.perf_counter()
found = PHash(verbose=False).encode_images(sys.argv[1], num_enc_workers=0)
print(len(found), time.perf_counter() - start)
"""
OURS = """
import sys, time
from pathlib import Path
import pandas as pd
from stages.core.pairs import shards_below
from stages.inspect.params import InspectParams
from stages.inspect.run import main
folder = Path(sys.argv[1])
start = time.perf_counter()
main(InspectParams(), folder / "raw", folder / "captions.parquet", folder / "inspected")
seconds = time.perf_counter() - start
print(sum(pd.read_parquet(path)["phash"].notna().sum() for path in shards_below(folder / "inspected")), seconds)
"""
COLLECT = """
import sys
from pathlib import Path
import pyarrow as pa
from stages.collect.params import CollectParams
from stages.collect.run import main
from stages.core.pairs import CAPTIONS, write_table
folder = Path(sys.argv[1])
params = CollectParams.model_validate({"sources": [{"kind": "folder", "name": "jpegs"}]})
main(params, folder, folder / "raw", folder / "metrics.json")
write_table(pa.Table.from_pylist([], schema=CAPTIONS), folder / "captions.parquet")
"""


def scene(megapixels: float, seed: int) -> Image.Image:
    """A picture of 3:2 with detail at every scale, as photographs have."""
    random = np.random.default_rng(seed)
    height = int((megapixels * 1e6 / 1.5) ** 0.5)
    size, total = (int(height * 1.5), height), np.zeros((height, int(height * 1.5), 3), np.float32)
    for cells, weight in ((3, 90), (12, 45), (48, 22), (192, 11), (768, 6)):
        noise = random.integers(0, 256, (cells, cells * 3 // 2, 3), dtype=np.uint8)
        total += np.asarray(Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC), np.float32) * weight / 174
    return Image.fromarray(total.clip(0, 255).astype(np.uint8))


def photograph(megapixels: float, seed: int) -> bytes:
    """The scene as a JPEG."""
    buffer = io.BytesIO()
    scene(megapixels, seed).save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def numbered(jpeg: bytes, number: int) -> bytes:
    """The same picture with a comment (JPEG's marker COM), so that its bytes are its own."""
    return jpeg[:2] + b"\xff\xfe\x00\x0a" + f"{number:08d}".encode() + jpeg[2:]


def child(python: str | Path, code: str, folder: Path) -> tuple[int, float]:
    """Run the code by itself on one core; what it counted, and its seconds."""
    state = {"DVC_ROOT": str(folder), "DARKROOM_WORKERS": "1", "OMP_NUM_THREADS": "1"}
    finished = subprocess.run(
        [str(python), "-c", code, str(folder if python == sys.executable else folder / "jpegs")],
        cwd=ROOT,
        env=os.environ | state,
        capture_output=True,
        text=True,
        check=True,
    )
    count, seconds = finished.stdout.split()[-2:]
    return int(count), float(seconds)


def main(pictures: int = 2000, runs: int = 3) -> None:
    """Medians of the runs, in turn."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "jpegs").mkdir()
        made = [photograph(megapixels, seed) for seed in range(3) for megapixels in MEGAPIXELS]
        for number in range(pictures):
            path = folder / "jpegs" / f"{number:06d}.jpg"
            path.write_bytes(numbered(made[number % len(made)], number))
        subprocess.run([sys.executable, "-c", COLLECT, name], cwd=ROOT, check=True, capture_output=True)
        seconds: dict[str, list[float]] = {"ours": [], "peer": []}
        for run in range(runs):
            (folder / ".dvc").rename(folder / f"old{run}") if (folder / ".dvc").exists() else None
            (folder / ".dvc").mkdir()  # nothing is known from the run before
            for who, python, code in (("ours", sys.executable, OURS), ("peer", PEER, THEIRS)):
                count, took = child(python, code, folder)
                assert count == pictures, f"{who}: {count} of {pictures}"
                seconds[who].append(took)
    ours, peer = (pictures / median(seconds[who]) for who in ("ours", "peer"))
    line = {"name": "inspect", "ours": round(ours, 1), "peer": round(peer, 1), "ratio": round(ours / peer, 2)}
    print(json.dumps({**line, "unit": "pictures/s/core"}))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
