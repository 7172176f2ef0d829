"""From an upright sRGB picture to a finished one."""

from dataclasses import dataclass

from PIL import Image, ImageOps

from stages.core.pictures import Colour
from stages.preprocess.params import PreprocessParams

SIDES = {"left", "right", "leftwards", "rightwards", "clockwise", "counterclockwise", "anticlockwise"}


@dataclass(frozen=True)
class Crop:
    """What of the resized picture is seen: offset of its top left corner, px (negative where padded)."""

    x: int
    y: int


def fit_square(params: PreprocessParams, image: Image.Image) -> tuple[Image.Image, Crop] | None:
    """A square of `params.resolution` by Lanczos; None if the picture would have to grow too much."""
    side = params.resolution
    short, long = min(image.size), max(image.size)
    scale = side / (short if params.fit == "center_crop" else long)
    if scale > params.max_upscale:
        return None
    width, height = (max(1, round(edge * scale)) for edge in image.size)
    resized = image.resize((width, height), Image.Resampling.LANCZOS)
    x, y = (width - side) // 2, (height - side) // 2
    if params.fit == "center_crop":
        return resized.crop((x, y, x + side, y + side)), Crop(x, y)
    red, green, blue = params.background
    background: Colour = (red, green, blue)
    canvas = Image.new("RGB", (side, side), background)
    canvas.paste(resized, (-x, -y))
    return canvas, Crop(x, y)


def variants(params: PreprocessParams, image: Image.Image, captions: list[str]) -> list[Image.Image]:
    """The picture and its variants, variant 0 first: its mirror image where that is still true to the captions."""
    words = {word.strip(".,:;!?()").lower() for caption in captions for word in caption.replace("-", " ").split()}
    if not params.flip or words & SIDES:
        return [image]
    return [image, ImageOps.mirror(image)]
