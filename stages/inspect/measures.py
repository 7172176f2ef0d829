"""What one picture and its captions measure."""

from dataclasses import dataclass

import imagehash
import numpy as np
import PIL
from PIL import Image

from stages.core.pictures import Colour, decode

# Pillow 13 resizes in another order than 12 and flips bits: hashes of two versions don't compare.
HASH_VERSION = f"imagehash {imagehash.__version__}, pillow {PIL.__version__}"


@dataclass(frozen=True)
class Measures:
    """A row of data/inspected; None where the picture could not be decoded.

    code, format, mode, transparent: see `stages.core.pictures.Picture`.
    width, height: px, upright. phash, dhash: 64 bits, hex. sharpness: variance
    of the Laplacian, grey levels squared. brightness, contrast: mean and
    standard deviation of grey, 0 to 1. entropy: of the grey levels, 0 to 8 bits.
    """

    code: str
    format: str
    mode: str
    transparent: float
    width: int | None = None
    height: int | None = None
    phash: str | None = None
    dhash: str | None = None
    hash_version: str | None = None
    sharpness: float | None = None
    brightness: float | None = None
    contrast: float | None = None
    entropy: float | None = None


def measure(data: bytes, background: Colour, most_pixels: int) -> Measures:
    """Measure one picture from its bytes; whatever they are, there is a row."""
    picture = decode(data, background, most_pixels)
    stored = (picture.code, picture.format, picture.mode, picture.transparent)
    if picture.image is None:
        return Measures(*stored)
    grey = np.asarray(picture.image.convert("L"), dtype=np.float64)
    return Measures(
        *stored,
        width=picture.image.width,
        height=picture.image.height,
        phash=str(imagehash.phash(picture.image)),
        dhash=str(imagehash.dhash(picture.image)),
        hash_version=HASH_VERSION,
        sharpness=round(sharpness(grey), 3),
        brightness=round(float(grey.mean() / 255), 5),
        contrast=round(float(grey.std() / 255), 5),
        entropy=round(entropy(picture.image), 4),
    )


def sharpness(grey: np.ndarray) -> float:
    """Variance of the 4-neighbour Laplacian of grey (H, W); 0.0 below 3 x 3.

    Source: Pech-Pacheco et al., Diatom autofocusing in brightfield microscopy, ICPR 2000.
    """
    if min(grey.shape) < 3:
        return 0.0
    inner = grey[1:-1, 1:-1]
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * inner
    return float(laplacian.var())


def entropy(image: Image.Image) -> float:
    """Shannon entropy of the grey levels' histogram, bits: 0 for one level, 8 for all alike."""
    counts = np.array(image.convert("L").histogram(), dtype=np.float64)
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum() + 0.0)
