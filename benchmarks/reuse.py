"""The stage encode after 1% new pictures, beside a run from nothing; the bytes have to be the same.

    python -m benchmarks.reuse [pictures] [side]

By default 3,000 pictures of 128 px through the VAE of models/tiny-sd. It may take 5% of the full time, and start-up:
the seconds of a run on 16 pictures. Prints JSON lines, last {"name", "ours", "peer", "ratio", "unit"}: ours is what the
run with 1% new pictures took, peer what it may take; ratio above 1: it stays below.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from stages.core.files import folder_digest
from stages.core.pairs import ShardWriter
from stages.preprocess.run import PROCESSED

ROOT = Path(__file__).parents[1]
COMMAND = ["-m", "stages.encode.run", "--processed", "processed", "--out", "latents", "--metrics", "encode.json"]


def row(number: int, side: int) -> dict[str, Any]:
    """A finished picture of coloured cells, with a caption of its own."""
    cells = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    buffer = BytesIO()
    Image.fromarray(cells).resize((side, side), Image.Resampling.BICUBIC).save(buffer, "PNG", compress_level=1)
    key = sha256(buffer.getvalue()).hexdigest()
    return {
        "key": key,
        "variant": 0,
        "image": {"bytes": buffer.getvalue(), "path": f"{key}.png"},
        **dict.fromkeys(("width", "height", "original_width", "original_height"), side),
        **dict.fromkeys(("crop_x", "crop_y"), 0),
        "captions": [f"cells number {number}"],
        "split": "train" if number % 20 else "validation",
        "role": "train",
        "repeats": 1,
    }


def lay(folder: Path, numbers: Iterable[int], side: int) -> None:
    """data/processed of these pictures, in order of keys as after `collect`."""
    shutil.rmtree(folder / "processed", ignore_errors=True)
    writer = ShardWriter(folder / "processed" / "mine", pa.schema(PROCESSED))
    for each in sorted((row(number, side) for number in numbers), key=lambda each: str(each["key"])):
        writer.add(each, len(each["image"]["bytes"]))
    writer.close()


def encode(folder: Path) -> tuple[float, str]:
    """Seconds of the stage as a program, and the digest of what it wrote."""
    began = time.perf_counter()
    command = [sys.executable, *COMMAND, "--base", str(ROOT / "models" / "tiny-sd")]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "DVC_ROOT": str(folder)}
    subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began, folder_digest(folder / "latents")


def forget(folder: Path) -> None:
    """As if nothing had been encoded before."""
    shutil.rmtree(folder / ".dvc")
    (folder / ".dvc").mkdir()


def main(pictures: int = 3000, side: int = 128) -> None:
    """Start-up, all but 1%, that 1% more, then everything from nothing."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / ".dvc").mkdir()
        (folder / "params.yaml").write_text("encode: {}\n")
        lay(folder, range(16), side)
        start_up, _ = encode(folder)
        lay(folder, range(pictures - pictures // 100), side)
        encode(folder)
        lay(folder, range(pictures), side)
        ours, grown = encode(folder)
        forget(folder)
        full, whole = encode(folder)
    assert grown == whole, "the bytes depend on what was encoded before"
    most = 0.05 * full + start_up
    for label, seconds in (("start-up", start_up), ("from nothing", full)):
        print(json.dumps({"name": f"encode, {label}", "value": round(seconds, 2), "unit": "s"}))
    line = {"name": "reuse", "ours": round(ours, 2), "peer": round(most, 2), "ratio": round(most / ours, 2)}
    print(json.dumps({**line, "unit": "s"}))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
