"""What can be done to pictures, more and more of it."""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

from tests.pictures import drawing

REAL = [drawing(seed) for seed in range(120)]
OTHERS = [drawing(seed) for seed in range(1000, 1120)]
STRENGTHS = (0.5, 1.0, 2.0)


def noisy(image: Image.Image, strength: float) -> Image.Image:
    noise = np.random.default_rng(0).normal(0, strength, (*image.size[::-1], 3))
    return Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))


HARM: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "blur": lambda image, much: image.filter(ImageFilter.GaussianBlur(3 * much)),
    "noise": lambda image, much: noisy(image, 60 * much),
    "colour": lambda image, much: Image.blend(image, Image.new("RGB", image.size, (255, 0, 0)), 0.4 * much),
}
