"""What one picture measures."""

import hashlib
from dataclasses import dataclass

import imagehash
import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image

from stages.core.pictures import Colour, decode

# Pillow 13 resizes in another order than 12 and flips bits: hashes of two versions don't compare.
HASH_VERSION = f"imagehash {imagehash.__version__}, pillow {PIL.__version__}"
SIDE = 256  # px: larger pictures are measured reduced to this shorter side, which makes their figures comparable
FLAT = 8  # grey levels of 256 that an edge may vary by


@dataclass(frozen=True)
class Measures:
    """A row of data/inspected; None where the picture could not be decoded.

    code, format, mode, profile, transparent, width, height: see `stages.core.pictures.Picture`.
    The others are of the picture reduced to SIDE. pixels: sha256 of its RGB values, hex.
    phash, dhash: 64 bits, hex; the mirrored ones are of the mirrored picture.
    sharpness: variance of the Laplacian, grey levels squared. brightness, contrast: mean and standard deviation
    of grey, saturation: mean of HSV's, all 0 to 1. entropy: of the grey levels, 0 to 8 bits.
    border: share of the area in edge rows and columns of one grey (letterbox, frame, margin).
    """

    code: str
    format: str
    mode: str
    profile: str
    transparent: float
    width: int
    height: int
    pixels: str | None = None
    phash: str | None = None
    dhash: str | None = None
    phash_mirrored: str | None = None
    dhash_mirrored: str | None = None
    hash_version: str | None = None
    sharpness: float | None = None
    brightness: float | None = None
    contrast: float | None = None
    saturation: float | None = None
    entropy: float | None = None
    border: float | None = None


def measure(data: bytes, background: Colour, most_pixels: int) -> Measures:
    """Measure one picture from its bytes; whatever they are, there is a row."""
    seen = decode(data, background, most_pixels, SIDE)
    stored = (seen.code, seen.format, seen.mode, seen.profile, seen.transparent, seen.width, seen.height)
    if seen.image is None:
        return Measures(*stored)
    image, grey = seen.image, seen.image.convert("L")
    levels, saturation = np.array(grey.histogram()), np.array(image.convert("HSV").getchannel("S").histogram())
    brightness, contrast = mean_and_deviation(levels)
    return Measures(
        *stored,
        hashlib.sha256(b"%d %d " % image.size + image.tobytes()).hexdigest(),
        *hashes(grey),
        *hashes(grey.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
        HASH_VERSION,
        sharpness=round(sharpness(np.asarray(grey)), 3),
        brightness=round(brightness / 255, 5),
        contrast=round(contrast / 255, 5),
        saturation=round(mean_and_deviation(saturation)[0] / 255, 5),
        entropy=round(entropy(levels), 4),
        border=round(border(np.asarray(grey)), 4),
    )


def hashes(grey: Image.Image) -> tuple[str, str]:
    """phash and dhash."""
    return str(imagehash.phash(grey)), str(imagehash.dhash(grey))


def mean_and_deviation(counts: NDArray[np.int64]) -> tuple[float, float]:
    """Of levels 0 to 255 that occur so often."""
    levels, total = np.arange(256), counts.sum()
    mean = float((counts * levels).sum() / total)
    return mean, float(np.sqrt((counts * (levels - mean) ** 2).sum() / total))


def sharpness(grey: NDArray[np.uint8]) -> float:
    """Variance of the 4-neighbour Laplacian of grey (H, W); 0.0 below 3 x 3.

    Source: Pech-Pacheco et al., Diatom autofocusing in brightfield microscopy, ICPR 2000.
    """
    if min(grey.shape) < 3:
        return 0.0
    levels = grey.astype(np.int16)
    laplacian = levels[:-2, 1:-1] + levels[2:, 1:-1] + levels[1:-1, :-2] + levels[1:-1, 2:] - 4 * levels[1:-1, 1:-1]
    return float(laplacian.var())


def entropy(counts: NDArray[np.int64]) -> float:
    """Shannon entropy of a histogram, bits: 0 for one level, 8 for 256 alike."""
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum() + 0.0)


def border(grey: NDArray[np.uint8]) -> float:
    """The share of grey (H, W) in edge rows and columns that vary by FLAT levels at most; 1 if all do."""
    inside = [np.flatnonzero(np.ptp(grey, axis=axis) > FLAT) for axis in (0, 1)]
    if not all(len(places) for places in inside):
        return 1.0
    width, height = (int(places[-1] - places[0]) + 1 for places in inside)
    return 1 - width * height / grey.size
