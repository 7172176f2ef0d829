"""12 MP JPEGs to 512 x 512 px: the stage's own path beside the plain Pillow path of training scripts, one core.

    python -m benchmarks.preprocess [pictures] [runs]

Both decode, orient, resize by Lanczos and crop the middle; neither writes. Theirs decodes every pixel. Errors are root
mean squares beside a resampling in float32 of the whole picture, in grey levels. The last line's ratio: how many times
more pictures a second ours makes.
"""

import io
import json
import sys
import time
from collections.abc import Callable
from statistics import median

import numpy as np
from PIL import Image, ImageOps

from benchmarks.inspect_pictures import photograph
from stages.core.pictures import decode
from stages.preprocess.params import PreprocessParams
from stages.preprocess.run import finish
from stages.preprocess.transform import frames, least_side

SIDE, WHITE, MOST = 512, (255, 255, 255), 89_478_485
PARAMS = PreprocessParams(resolution=SIDE)


def ours(data: bytes) -> Image.Image:
    """As `stages.preprocess.run.preprocess_shard` does."""
    table = frames(PARAMS)
    picture = decode(data, WHITE, MOST, least=least_side(table))
    return finish(PARAMS, table, picture, "", ["a photo"], "train")[0].image


def theirs(data: bytes) -> Image.Image:
    """Open, orient, resize the shorter side, crop."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    scale = SIDE / min(image.size)
    width, height = (round(edge * scale) for edge in image.size)
    x, y = (width - SIDE) // 2, (height - SIDE) // 2
    return image.resize((width, height), Image.Resampling.LANCZOS).crop((x, y, x + SIDE, y + SIDE))


def reference(data: bytes) -> np.ndarray:
    """The same in float32, each channel resampled without rounding between the passes."""
    image = Image.open(io.BytesIO(data))
    scale = SIDE / min(image.size)
    width, height = (round(edge * scale) for edge in image.size)
    x, y = (width - SIDE) // 2, (height - SIDE) // 2
    channels = [
        Image.fromarray(np.asarray(channel, np.float32)).resize((width, height), Image.Resampling.LANCZOS)
        for channel in image.split()
    ]
    return np.stack([np.asarray(channel)[y : y + SIDE, x : x + SIDE] for channel in channels], axis=2).clip(0, 255)


def seconds(make: Callable[[bytes], Image.Image], pictures: list[bytes]) -> float:
    began = time.perf_counter()
    for data in pictures:
        make(data)
    return time.perf_counter() - began


def main(count: int = 12, runs: int = 5) -> None:
    """Ours and theirs in turn."""
    pictures = [photograph(12, seed) for seed in range(count)]
    took = [(seconds(ours, pictures), seconds(theirs, pictures)) for _ in range(runs)]
    rates = [count / median(run[who] for run in took) for who in (0, 1)]
    wanted = [reference(data) for data in pictures]
    for name, make in (("ours", ours), ("pillow", theirs)):
        squares = [
            float(np.square(np.asarray(make(data), np.float32) - exact).mean())
            for data, exact in zip(pictures, wanted, strict=True)
        ]
        print(
            json.dumps({"name": f"error, {name}", "value": round((sum(squares) / count) ** 0.5, 3), "unit": "levels"})
        )
    line = {"name": "preprocess", "ours": round(rates[0], 1), "peer": round(rates[1], 1)}
    print(json.dumps({**line, "ratio": round(rates[0] / rates[1], 2), "unit": "pictures/s/core"}))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
