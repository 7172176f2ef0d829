"""Seconds of the stage clean, start-up included, on 100,000 measured pictures after a threshold has changed.

    python -m benchmarks.clean

No picture is there to be opened: only data/inspected. A tenth of the rows look like others. Prints a JSON line
{"name", "ours", "peer", "ratio", "unit"}: peer is the 10 s that it may take; ratio above 1: it stays below.
"""

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa
import yaml

from benchmarks.dedup import planted
from stages.core.pairs import write_table
from stages.inspect.captions import measure_caption
from stages.inspect.run import MEASURED

ROOT = Path(__file__).parents[1]
ROWS, SHARD = 100_000, 512
WORDS = ["red", "blue", "small", "old", "cat", "dog", "house", "tree", "car", "on", "a", "the", "of", "with", "bird"]


def fill(folder: Path, rows_in_all: int = ROWS) -> None:
    """data/inspected, as the stage before would have written it."""
    random = np.random.default_rng(0)
    hashes = random.permutation(planted(rows_in_all + rows_in_all // 10))[:rows_in_all]
    captions = [" ".join(random.choice(WORDS, random.integers(2, 12))) for _ in range(rows_in_all)]
    (folder / "inspected" / "mine").mkdir(parents=True)
    for start in range(0, rows_in_all, SHARD):
        rows = []
        for number in range(start, min(start + SHARD, rows_in_all)):
            caption, looks = captions[number], f"{hashes[number]:016x}"
            rows.append(
                {
                    "shard": f"mine/{start // SHARD:05d}.parquet",
                    "row": number - start,
                    "key": f"{number:064x}",
                    "captions": [caption],
                    "captions_by": "source",
                    "source": "mine",
                    "role": "train",
                    "repeats": 1,
                    "measured_captions": [asdict(measure_caption(caption))],
                    "extra": "{}",
                    "code": "ok",
                    "format": "JPEG",
                    "mode": "RGB",
                    "profile": "",
                    "transparent": 0.0,
                    "hash_version": "v",
                    "width": int(random.integers(400, 1000)),
                    "height": int(random.integers(400, 1000)),
                    "pixels": f"{number:064x}",
                    "phash": looks,
                    "dhash": looks,
                    "phash_mirrored": looks,
                    "dhash_mirrored": looks,
                    "sharpness": float(random.uniform(0, 9000)),
                    "brightness": 0.5,
                    "contrast": 0.2,
                    "saturation": 0.3,
                    "entropy": 6.0,
                    "border": 0.1,
                }
            )
        write_table(pa.Table.from_pylist(rows, schema=MEASURED), folder / "inspected" / rows[0]["shard"])
    (folder / "inspected" / "sources.json").write_text('["mine"]')
    write_table(pa.table({"source": pa.array([], pa.string()), "key": pa.array([], pa.string())}), folder / "s.parquet")
    (folder / "review.csv").write_text("key,verdict,caption,note\n")


def main() -> None:
    """Five thresholds, five runs; the median."""
    command = "-m stages.clean.run --inspected inspected --scores s.parquet --review review.csv"
    command += " --out clean --metrics clean.json --plot rejected.csv"
    with tempfile.TemporaryDirectory() as name:
        folder, took = Path(name), []
        fill(folder)
        for sharpness in (0, 100, 200, 300, 400):
            (folder / "params.yaml").write_text(yaml.safe_dump({"clean": {"min_sharpness": float(sharpness)}}))
            began = time.perf_counter()
            environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
            subprocess.run([sys.executable, *command.split()], cwd=folder, env=environment, check=True)
            took.append(time.perf_counter() - began)
    ours = median(took)
    print(json.dumps({"name": "clean", "ours": round(ours, 2), "peer": 10, "ratio": round(10 / ours, 2), "unit": "s"}))


if __name__ == "__main__":
    main()
