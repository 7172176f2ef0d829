"""From an upright sRGB picture to a finished one."""

from dataclasses import dataclass
from math import ceil, sqrt

from PIL import Image

from stages.core.pictures import Colour
from stages.preprocess.buckets import Size, bucket_table
from stages.preprocess.params import PreprocessParams


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


def fit_frame(params: PreprocessParams, image: Image.Image, size: Size, frame: Size) -> tuple[Image.Image, Crop] | None:
    """A picture of the frame's size by Lanczos; None if it would have to grow too much.

    size: the picture's true one; `image` may have been reduced when it was decoded.
    """
    scales = [edge / whole for edge, whole in zip(frame, size, strict=True)]
    scale = min(scales) if params.fit == "pad" else max(scales)
    if scale > params.max_upscale:
        return None
    width, height = (max(1, round(edge * scale)) for edge in size)
    resized = image.resize((width, height), Image.Resampling.LANCZOS)
    x, y = (width - frame[0]) // 2, (height - frame[1]) // 2
    if params.fit != "pad":
        return resized.crop((x, y, x + frame[0], y + frame[1])), Crop(x, y)
    red, green, blue = params.background
    background: Colour = (red, green, blue)
    canvas = Image.new("RGB", frame, background)
    canvas.paste(resized, (-x, -y))
    return canvas, Crop(x, y)
