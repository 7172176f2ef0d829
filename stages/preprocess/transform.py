"""From an upright sRGB picture to a finished one."""

from dataclasses import dataclass
from math import ceil, sqrt

import numpy as np
from PIL import Image

from stages.core.pictures import Box, Colour, decode, whole
from stages.preprocess.buckets import Size, bucket_table
from stages.preprocess.params import PreprocessParams


@dataclass(frozen=True)
class Upright:
    """A picture as it was decoded: mode RGB or YCbCr, its own size, px, and where in `image` it lies.

    `image` may be smaller than the picture's own size, in either direction by its own share.
    """

    image: Image.Image
    size: Size
    box: Box

    @classmethod
    def whole(cls, image: Image.Image) -> "Upright":
        """An image that is the picture."""
        return cls(image, image.size, whole(image))


@dataclass(frozen=True)
class Crop:
    """What of the resized picture is seen: offset of its top left corner, px (negative where padded)."""

    x: int
    y: int


def frames(params: PreprocessParams) -> list[Size]:
    """The sizes that finished pictures may have: the square, or the buckets."""
    if params.fit == "bucket":
        return bucket_table(params.resolution, params.bucket_step, params.max_bucket_aspect)
    return [(params.resolution, params.resolution)]


def least_side(table: list[Size], zoom: float = 1.0) -> int:
    """How far a JPEG may be reduced while it is decoded, px of its shorter side: to twice what is made of it.

    A picture that fills a bucket has at most the bucket's area over the share that is seen. The square is in the
    table, so that share is at least 1 over the picture's aspect: the shorter side never exceeds the root of the area.
    """
    return 2 * ceil(sqrt(max(width * height for width, height in table)) * zoom)


def open_picture(params: PreprocessParams, data: bytes, least: int) -> Upright | None:
    """Decode a file, a JPEG at no less than `least` px a side; None if it can't be."""
    red, green, blue = params.background
    picture = decode(data, (red, green, blue), params.most_pixels, least=least)
    return Upright(picture.image, (picture.width, picture.height), picture.box) if picture.image else None


def fit_frame(params: PreprocessParams, upright: Upright, frame: Size) -> tuple[Image.Image, Crop] | None:
    """A picture of the frame's size; None if it would have to grow too much."""
    scales = [edge / whole for edge, whole in zip(frame, upright.size, strict=True)]
    scale = min(scales) if params.fit == "pad" else max(scales)
    if scale > params.max_upscale:
        return None
    width, height = (max(1, round(edge * scale)) for edge in upright.size)
    x, y = (width - frame[0]) // 2, (height - frame[1]) // 2
    if params.fit != "pad":
        return resample(upright, (width, height), (x, y, x + frame[0], y + frame[1])), Crop(x, y)
    red, green, blue = params.background
    background: Colour = (red, green, blue)
    canvas = Image.new("RGB", frame, background)
    canvas.paste(resample(upright, (width, height), (0, 0, width, height)), (-x, -y))
    return canvas, Crop(x, y)


def resample(upright: Upright, size: Size, seen: tuple[int, int, int, int]) -> Image.Image:
    """What is `seen` of the picture resized to `size` by Lanczos, RGB.

    YCbCr goes through Pillow's resampling in floats, a plane at a time, and is rounded once, when it has become RGB.
    """
    left, top, right, bottom = upright.box
    across, down = (right - left) / size[0], (bottom - top) / size[1]
    box = (
        left + seen[0] * across,
        top + seen[1] * down,
        min(left + seen[2] * across, upright.image.width),
        min(top + seen[3] * down, upright.image.height),
    )
    frame = (seen[2] - seen[0], seen[3] - seen[1])
    if upright.image.mode == "RGB":
        return upright.image.resize(frame, Image.Resampling.LANCZOS, box)
    luma, blue, red = (
        np.asarray(plane.convert("F").resize(frame, Image.Resampling.LANCZOS, box)) for plane in upright.image.split()
    )
    blue, red = blue - 128, red - 128
    colours = [luma + 1.402 * red, luma - 0.344136286 * blue - 0.714136286 * red, luma + 1.772 * blue]
    return Image.fromarray(np.rint(np.stack(colours, axis=2).clip(0, 255)).astype(np.uint8))
