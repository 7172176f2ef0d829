"""What diffusers' training script takes of `torchvision.transforms`, where torchvision can't be had.

`benchmarks.train_sides` hands it to that script alone. On Pillow's images and with Pillow's own resampling, as
torchvision does it.
"""

import random
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

import numpy as np
import torch
from PIL import Image


class InterpolationMode(Enum):
    """By torchvision's names."""

    NEAREST = Image.Resampling.NEAREST
    BOX = Image.Resampling.BOX
    BILINEAR = Image.Resampling.BILINEAR
    HAMMING = Image.Resampling.HAMMING
    BICUBIC = Image.Resampling.BICUBIC
    LANCZOS = Image.Resampling.LANCZOS


class Compose:
    """One after the other."""

    def __init__(self, transforms: Sequence[Callable[[Any], Any]]) -> None:
        self.transforms = transforms

    def __call__(self, image: Any) -> Any:
        for transform in self.transforms:
            image = transform(image)
        return image


class Lambda:
    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def __call__(self, image: Any) -> Any:
        return self.function(image)


class Resize:
    """The shorter side to `size`; a picture that has it already is left alone."""

    def __init__(self, size: int, interpolation: InterpolationMode = InterpolationMode.BILINEAR) -> None:
        self.size, self.interpolation = size, interpolation

    def __call__(self, image: Image.Image) -> Image.Image:
        short = min(image.size)
        if short == self.size:
            return image
        width, height = (int(self.size * side / short) for side in image.size)
        return image.resize((width, height), self.interpolation.value)


class CenterCrop:
    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, image: Image.Image) -> Image.Image:
        x, y = (round((side - self.size) / 2) for side in image.size)
        return image.crop((x, y, x + self.size, y + self.size))


class RandomCrop:
    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, image: Image.Image) -> Image.Image:
        if image.size == (self.size, self.size):
            return image
        x, y = (int(torch.randint(0, side - self.size + 1, ())) for side in image.size)
        return image.crop((x, y, x + self.size, y + self.size))


class RandomHorizontalFlip:
    def __init__(self, p: float = 0.5) -> None:
        self.p = p

    def __call__(self, image: Image.Image) -> Image.Image:
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if random.random() < self.p else image


class ToTensor:
    """(3, H, W) float32 from 0 to 1."""

    def __call__(self, image: Image.Image) -> torch.Tensor:
        pixels_HW3 = torch.from_numpy(np.array(image, np.uint8))
        return pixels_HW3.permute(2, 0, 1).contiguous().float().div(255)


class Normalize:
    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.mean, self.std = (torch.tensor(values)[:, None, None] for values in (mean, std))

    def __call__(self, pixels_3HW: torch.Tensor) -> torch.Tensor:
        return pixels_3HW.clone().sub_(self.mean).div_(self.std)
