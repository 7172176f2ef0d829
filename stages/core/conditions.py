"""Pictures that a ControlNet follows, made from others; none needs weights."""

from collections.abc import Callable

import numpy as np
from PIL import Image

CELLS = 8  # of a palette, along the shorter side
TILE = 8  # how much smaller a tile is


def make_condition(name: str, image: Image.Image) -> Image.Image:
    """The condition `name`, one of MAKERS, of a picture, RGB, of the same size."""
    return MAKERS[name](image).convert("RGB")


def canny(image: Image.Image) -> Image.Image:
    """White edges on black (Canny 1986), with the thresholds 100 and 200 that ControlNets were trained with."""
    import cv2

    return Image.fromarray(cv2.Canny(_grey(image), 100, 200))


def soft_edge(image: Image.Image) -> Image.Image:
    """Steepness by Scharr's operator; divided by the sum of its weights, so a step from black to white is white."""
    import cv2

    across, down = (cv2.Scharr(_grey(image), cv2.CV_32F, dx, dy) / 16 for dx, dy in ((1, 0), (0, 1)))
    return Image.fromarray(np.hypot(across, down).clip(0, 255).round().astype(np.uint8))


def blur(image: Image.Image) -> Image.Image:
    """Gaussian blur; its deviation is a 64th of the shorter side."""
    import cv2

    return Image.fromarray(cv2.GaussianBlur(np.asarray(image), (0, 0), min(image.size) / 64))


def tile(image: Image.Image) -> Image.Image:
    """Reduced by 8 and enlarged again: what a ControlNet for detail starts from."""
    small = (max(1, image.width // TILE), max(1, image.height // TILE))
    return image.resize(small, Image.Resampling.BOX).resize(image.size, Image.Resampling.BICUBIC)


def palette(image: Image.Image) -> Image.Image:
    """Cells of mean colour, 8 along the shorter side."""
    cells = [max(1, round(CELLS * edge / min(image.size))) for edge in image.size]
    return image.resize((cells[0], cells[1]), Image.Resampling.BOX).resize(image.size, Image.Resampling.NEAREST)


MAKERS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "canny": canny,
    "soft_edge": soft_edge,
    "blur": blur,
    "tile": tile,
    "palette": palette,
}


def _grey(image: Image.Image) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.asarray(image.convert("L"))
