"""12 MP JPEGs to 512 x 512 px: the stage's own path beside the plain Pillow path of training scripts, one core.

    python -m benchmarks.preprocess [pictures] [runs] [megapixels] [quality] [subsampling]

Both decode, orient, resize by Lanczos and crop the middle; neither writes. Theirs decodes every pixel. Errors are root
mean squares, in grey levels, beside Lanczos in float32 of: the decoder's RGB, rounded to 8 bits as the plain path has
it; the decoder's YCbCr, made RGB in float32; the picture that the JPEG was made of. 0.289 of each is the rounding of
what is written. The last line's ratio: how many times more pictures a second ours makes. docs/log.md has what came of
it, also where theirs errs less.
"""

import io
import json
import sys
import time
from collections.abc import Callable, Sequence
from statistics import median

import numpy as np
from PIL import Image, ImageOps

from benchmarks.inspect_pictures import scene
from stages.preprocess.buckets import Size
from stages.preprocess.params import PreprocessParams
from stages.preprocess.run import finish
from stages.preprocess.transform import frames, least_side, open_picture

SIDE = 512
PARAMS = PreprocessParams(resolution=SIDE)
JFIF = np.array([[1, 0, 1.402], [1, -0.344136286, -0.714136286], [1, 1.772, 0]], np.float32)

Array = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


def photograph(megapixels: float, seed: int, quality: int, subsampling: int) -> bytes:
    """The scene as a JPEG. subsampling: of its colours, as Pillow numbers them: 0 none, 2 by two in both directions."""
    buffer = io.BytesIO()
    scene(megapixels, seed).save(buffer, "JPEG", quality=quality, subsampling=subsampling)
    return buffer.getvalue()


def ours(data: bytes) -> Image.Image:
    """As `stages.preprocess.run` does."""
    table = frames(PARAMS)
    upright = open_picture(PARAMS, data, least_side(table))
    assert upright is not None
    return next(finish(PARAMS, upright, table, "", ["a photo"], "train")).image


def theirs(data: bytes) -> Image.Image:
    """Open, orient, resize the shorter side, crop."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    (width, height), (x, y) = resized(image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS).crop((x, y, x + SIDE, y + SIDE))


def resized(size: Size) -> tuple[Size, Size]:
    """The size whose shorter side is SIDE, and where its middle square begins."""
    width, height = (round(edge * SIDE / min(size)) for edge in size)
    return (width, height), ((width - SIDE) // 2, (height - SIDE) // 2)


def references(seed: int, data: bytes, megapixels: float) -> dict[str, Array]:
    """What a picture would be without rounding, by what is taken as given."""
    image = Image.open(io.BytesIO(data))
    image.draft("YCbCr", image.size)
    colours = (exactly(image) - np.array([0, 128, 128], np.float32)) @ JFIF.T
    found = {
        "8-bit RGB": exactly(Image.open(io.BytesIO(data))),
        "YCbCr": colours,
        "original": exactly(scene(megapixels, seed)),
    }
    return {name: values.clip(0, 255) for name, values in found.items()}


def exactly(image: Image.Image) -> Array:
    """The middle square in float32, each band resampled without rounding between the passes."""
    size, (x, y) = resized(image.size)
    bands = [band.convert("F").resize(size, Image.Resampling.LANCZOS) for band in image.split()]
    return np.stack([np.asarray(band)[y : y + SIDE, x : x + SIDE] for band in bands], axis=2)


def root_mean_square(differences: Sequence[Array]) -> float:
    return round(
        float(np.mean([np.square(difference, dtype=np.float64).mean() for difference in differences])) ** 0.5, 3
    )


def seconds(make: Callable[[bytes], Image.Image], pictures: list[bytes]) -> float:
    began = time.perf_counter()
    for data in pictures:
        make(data)
    return time.perf_counter() - began


def main(count: int = 12, runs: int = 5, megapixels: int = 12, quality: int = 88, subsampling: int = 2) -> None:
    """Ours and theirs in turn."""
    pictures = [photograph(megapixels, seed, quality, subsampling) for seed in range(count)]
    took = [(seconds(ours, pictures), seconds(theirs, pictures)) for _ in range(runs)]
    rates = [count / median(run[who] for run in took) for who in (0, 1)]
    off: dict[tuple[str, str], list[Array]] = {}
    for seed, data in enumerate(pictures):
        made = {"ours": np.asarray(ours(data), np.float32), "peer": np.asarray(theirs(data), np.float32)}
        for given, exact in references(seed, data, megapixels).items():
            for who, values in made.items():
                off.setdefault((given, who), []).append(values - exact)
    for given in dict.fromkeys(given for given, _ in off):
        errors = {who: root_mean_square(off[given, who]) for who in ("ours", "peer")}
        print(json.dumps({"name": f"error beside {given}", **errors, "unit": "levels"}))
    line = {"name": "preprocess", "ours": round(rates[0], 1), "peer": round(rates[1], 1)}
    print(json.dumps({**line, "ratio": round(rates[0] / rates[1], 2), "unit": "pictures/s/core"}))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
