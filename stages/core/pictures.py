"""From a file's bytes to an upright sRGB picture, or a code that says why not."""

import io
import warnings
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageCms, ImageOps
from PIL.JpegImagePlugin import JpegImageFile

Colour = tuple[int, int, int]
Box = tuple[float, float, float, float]  # left, top, right, bottom, px

# Pillow knows more; some of it starts other programs (EPS runs Ghostscript).
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "AVIF")
EOI = b"\xff\xd9"
PADS = (b"", bytes(range(255)), bytes(range(254, -1, -1)), bytes(7 * n % 255 for n in range(255)))
ORIENTATION, LYING = 0x0112, (5, 6, 7, 8)  # of EXIF: the values that turn width into height
LEFT, TOP = (2, 3, 6, 7), (3, 4, 7, 8)  # the values that bring the last column or row to the left, to the top
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


# Codes of pictures that there are; the others have none.
SHOWN = ("ok", "animated", "missing_eoi")


@dataclass(frozen=True)
class Picture:
    """What the bytes are.

    code: ok; animated (the first frame is taken); missing_eoi (a JPEG that is whole but for its last two bytes);
    truncated, unreadable or bomb. image: upright, mode RGB, sRGB, 8 bits; None unless the code is one of SHOWN.
    width, height: px, upright, as stored, however `image` was reduced; 0 if unknown.
    box: where in `image` the picture lies: of a JPEG of 101 px that was decoded at half its size 50.5 of 51 px.
    format, mode: as stored ("" if unknown). profile: the colour profile's name; "" if there is none, or a broken one.
    transparent: share of pixels below half opacity, 0 to 1.
    """

    code: str
    image: Image.Image | None = None
    width: int = 0
    height: int = 0
    format: str = ""
    mode: str = ""
    profile: str = ""
    transparent: float = 0.0
    box: Box = (0.0, 0.0, 0.0, 0.0)


def decode(
    data: bytes, background: Colour, most_pixels: int, side: int | None = None, least: int | None = None
) -> Picture:
    """Decode a file, orient it, bring it to 8-bit sRGB and lay it over `background`.

    side: px; where the shorter side is longer, `image` is reduced until it is this, and a JPEG is decoded at an
    eighth, quarter or half of its size first, which takes a third of the time.
    least: px; a JPEG is so decoded as long as both sides stay at least this, and nothing else is reduced. What was so
    reduced is of mode YCbCr (JFIF 1.02, section 7) where the JPEG is and has no profile: rounding it to RGB before it
    is resized would cost more than the reduced decoding does.
    Nothing in the bytes can raise: pictures come from strangers.
    """
    picture = _decode(data, background, most_pixels, side, least, kept=least is not None)
    if least and picture.image is None:  # broken, or its markers say YCbCr to us and RGB to libjpeg
        picture = _decode(data, background, most_pixels, side, least)
    if picture.code == "truncated" and picture.format == "JPEG":
        # What follows the end of the last scan is skipped. Where it isn't, a part of the scan was missing.
        scan = data.rstrip(EOI[:1])
        tries = [_decode(scan + more + EOI, background, most_pixels, side, least) for more in PADS]
        if len({one.image.tobytes() if one.image else None for one in tries}) == 1 and tries[0].image:
            return replace(tries[0], code="missing_eoi")
    return picture


def _decode(
    data: bytes, background: Colour, most_pixels: int, side: int | None, least: int | None, kept: bool = False
) -> Picture:
    """kept: leave the samples of a JPEG in YCbCr."""
    width = height = 0
    name = mode = ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of odd metadata; the codes below say what matters
        try:
            stored = Image.open(io.BytesIO(data), formats=FORMATS)
            name, mode, (width, height) = stored.format or "", stored.mode, stored.size
            if width * height > most_pixels:
                return Picture("bomb", None, width, height, name, mode)
            kept = kept and least is not None and min(stored.size) >= 2 * least and _is_ycbcr(stored)
            drafted = None
            if smallest := side or least:
                drafted = stored.draft("YCbCr" if kept else None, (smallest, smallest))
            stored.load()
            upright, orientation = _upright(stored)
            width, height = (height, width) if orientation in LYING else (width, height)
            profile = upright.info.get("icc_profile")
            image, transparent = (upright, 0.0) if kept else _to_srgb(upright, background)
            box = _turned(drafted[1], orientation, image.size) if drafted else whole(image)
            code = "animated" if getattr(stored, "n_frames", 1) > 1 else "ok"
        except Image.DecompressionBombError:
            return Picture("bomb", None, width, height, name, mode)
        except Exception as error:  # noqa: BLE001 - decoders raise whatever they like on broken bytes; the row says so
            cut = isinstance(error, OSError) and "truncated" in str(error)
            return Picture("truncated" if cut else "unreadable", None, width, height, name, mode)
    if side and min(image.size) > side:
        scale = side / min(image.size)
        size = round(image.width * scale), round(image.height * scale)
        image = image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
        box = whole(image)
    return Picture(code, image, width, height, name, mode, _name_of(profile), transparent, box)


def whole(image: Image.Image) -> Box:
    """The box of an image that is the picture."""
    return 0.0, 0.0, float(image.width), float(image.height)


def _is_ycbcr(stored: Image.Image) -> bool:
    """Whether a JPEG's samples are YCbCr, by libjpeg's own rules for three components, and no profile says more."""
    if not isinstance(stored, JpegImageFile) or stored.layers != 3 or stored.info.get("icc_profile"):
        return False
    if "jfif" in stored.info:
        return True
    if "adobe" in stored.info:
        return stored.info.get("adobe_transform") == 1
    return [layer[0] for layer in stored.layer] == [1, 2, 3]


def _upright(stored: Image.Image) -> tuple[Image.Image, int]:
    """Turned as its EXIF says, and what that was, 1 to 8; broken EXIF is none, as viewers have it."""
    try:
        return ImageOps.exif_transpose(stored), int(stored.getexif().get(ORIENTATION, 1))
    except Exception:  # noqa: BLE001 - Pillow's reader of EXIF raises whatever it likes on broken bytes
        return stored, 1


def _turned(box: Box, orientation: int, size: tuple[int, int]) -> Box:
    """Where in the upright image of this size the picture lies that filled `box`, from the top left, as stored."""
    width, height = (box[3], box[2]) if orientation in LYING else (box[2], box[3])
    left = size[0] - width if orientation in LEFT else 0.0
    top = size[1] - height if orientation in TOP else 0.0
    return left, top, left + width, top + height


def _name_of(profile: bytes | None) -> str:
    try:
        return ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile))).strip() if profile else ""
    except (ImageCms.PyCMSError, OSError):
        return ""


def _to_srgb(image: Image.Image, background: Colour) -> tuple[Image.Image, float]:
    """RGB in sRGB over `background`, and the share of transparent pixels."""
    profile = image.info.get("icc_profile")
    if image.mode in ("I;16", "I;16L", "I;16B", "I;16N", "I"):
        # 16 bits a sample: 65,535 becomes 255. Pillow's own conversion clips instead.
        image = Image.fromarray((np.asarray(image).astype(np.int64).clip(0, 65_535) // 257).astype(np.uint8))
    elif image.mode == "F":
        image = Image.fromarray(np.asarray(image).clip(0, 255).astype(np.uint8))
    alpha: Image.Image | None = None
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
    if image.mode in ("P", "1"):
        image = image.convert("RGB")
    colours = _convert(image, profile)
    if alpha is None:
        return colours, 0.0
    canvas = Image.new("RGB", colours.size, background)
    canvas.paste(colours, mask=alpha)
    return canvas, float((np.asarray(alpha) < 128).mean())


def _convert(image: Image.Image, profile: bytes | None) -> Image.Image:
    if profile and image.mode in ("RGB", "L", "CMYK", "RGBA"):
        source = image.convert("RGB") if image.mode == "RGBA" else image
        try:
            converted = ImageCms.profileToProfile(source, io.BytesIO(profile), SRGB, outputMode="RGB")
        except (ImageCms.PyCMSError, OSError):
            converted = None  # a broken profile is no profile, as browsers have it
        if converted is not None:
            return converted
    return image.convert("RGB")
