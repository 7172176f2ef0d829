"""Further pictures of one picture: mirrored, turned a little, cropped, recoloured. They share its key and its split."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, cos, radians, sin

from PIL import Image, ImageEnhance, ImageOps

from stages.core.draws import uniform
from stages.preprocess.buckets import Size
from stages.preprocess.params import Augment, PreprocessParams
from stages.preprocess.sides import names_sides, swap_sides
from stages.preprocess.transform import Crop, Upright, fit_frame

MIRRORED, FIRST_DRAWN = 1, 2  # numbers of variants; 0 is the picture itself


@dataclass(frozen=True)
class Variant:
    """A finished picture of a key, its number, and what is said of it."""

    number: int
    image: Image.Image
    crop: Crop
    captions: list[str]


def mirrored(params: PreprocessParams, plain: Variant) -> list[Variant]:
    """The mirror image, if it is asked for and something true can be said of it."""
    if not params.flip or (params.flip is True and any(map(names_sides, plain.captions))):
        return []
    captions = [swap_sides(caption) for caption in plain.captions]  # leaves captions that name no side as they are
    return [Variant(MIRRORED, ImageOps.mirror(plain.image), plain.crop, captions)]


def drawn(params: PreprocessParams, upright: Upright, frame: Size, key: str) -> Iterator[Variant]:
    """The picture turned, cropped and recoloured by chance, without captions; not where it would grow too much.

    Every draw belongs to (seed, key, variant) and what it is for.
    """
    for number in range(FIRST_DRAWN, FIRST_DRAWN + params.augment.variants):
        cut = _cut(params, upright, frame, key, number)
        if cut:
            yield Variant(number, _jitter(params.augment, cut[0], key, number), cut[1], [])


def without_jitter(params: PreprocessParams) -> PreprocessParams:
    """The same places, the colours left alone."""
    return params.model_copy(update={"augment": params.augment.model_copy(update={"jitter": 0.0})})


def most_zoom(augment: Augment, frames: list[Size]) -> float:
    """How much larger than its frame a picture may have to be made for a variant to be cut out of it."""
    if not augment.variants:
        return 1.0
    return max(_turning(augment.rotate, frame) for frame in frames) / (1 - augment.crop)


def _turning(angle: float, frame: Size) -> float:
    """How much larger than an upright frame a picture of its shape must be to fill it when turned.

    The frame, seen from the picture, has the bounding box (w cos a + h sin a, w sin a + h cos a).
    """
    turn = radians(abs(angle))
    return cos(turn) + sin(turn) * max(frame) / min(frame)


def _cut(
    params: PreprocessParams, upright: Upright, frame: Size, key: str, number: int
) -> tuple[Image.Image, Crop] | None:
    """Fit the picture into a larger frame, then cut the turned one out of it, somewhere."""
    augment = params.augment

    def draw(what: str) -> float:
        return uniform(augment.seed, "augment", key, number, what)

    angle = augment.rotate * (2 * draw("rotate") - 1)
    share = 1 - augment.crop * draw("crop")
    turning = _turning(angle, frame)
    inner = [ceil(edge * turning) for edge in frame]
    outer = (ceil(frame[0] * turning / share), ceil(frame[1] * turning / share))
    fitted = fit_frame(params, upright, outer)
    if fitted is None:
        return None
    large, crop = fitted
    x, y = (int(draw(axis) * (outer[i] - inner[i] + 1)) for i, axis in enumerate("xy"))
    middle_x, middle_y = x + inner[0] / 2, y + inner[1] / 2
    left, top = round(middle_x - frame[0] / 2), round(middle_y - frame[1] / 2)
    seen = Crop(crop.x + left, crop.y + top)
    if not angle:
        return large.crop((left, top, left + frame[0], top + frame[1])), seen
    c, s = cos(radians(angle)), sin(radians(angle))
    # Pillow asks where in `large` each pixel of the frame comes from: turned about the middles of both.
    shift_x = middle_x - c * frame[0] / 2 - s * frame[1] / 2
    shift_y = middle_y + s * frame[0] / 2 - c * frame[1] / 2
    affine = (c, s, shift_x, -s, c, shift_y)
    return large.transform(frame, Image.Transform.AFFINE, affine, Image.Resampling.BICUBIC), seen


def _jitter(augment: Augment, image: Image.Image, key: str, number: int) -> Image.Image:
    """Brightness, contrast and saturation, in this order, each times 1 - jitter to 1 + jitter."""
    kinds = {"brightness": ImageEnhance.Brightness, "contrast": ImageEnhance.Contrast, "saturation": ImageEnhance.Color}
    if augment.jitter:
        for what, kind in kinds.items():
            amount = 2 * uniform(augment.seed, "augment", key, number, what) - 1
            image = kind(image).enhance(1 + augment.jitter * amount)
    return image
