"""From a file's bytes to an upright sRGB picture, or a code that says why not."""

import io
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageCms, ImageOps

Colour = tuple[int, int, int]

# Pillow knows more; some of it starts other programs (EPS runs Ghostscript).
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "AVIF")
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


@dataclass(frozen=True)
class Picture:
    """What the bytes are.

    code: ok, animated (the first frame is taken), truncated, unreadable or bomb.
    image: upright, mode RGB, sRGB, 8 bits; None unless code is ok or animated.
    format, mode: as stored ("" if unknown). transparent: share of pixels below half opacity, 0 to 1.
    """

    code: str
    image: Image.Image | None = None
    format: str = ""
    mode: str = ""
    transparent: float = 0.0


def decode(data: bytes, background: Colour, most_pixels: int) -> Picture:
    """Decode a file, orient it, bring it to 8-bit sRGB and lay it over `background`.

    Nothing in the bytes can raise: pictures come from strangers.
    """
    name = mode = ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of odd metadata; the codes below say what matters
        try:
            stored = Image.open(io.BytesIO(data), formats=FORMATS)
            name, mode = stored.format or "", stored.mode
            if stored.width * stored.height > most_pixels:
                return Picture("bomb", format=name, mode=mode)
            stored.load()
            upright = ImageOps.exif_transpose(stored)
            image, transparent = _to_srgb(upright, background)
            code = "animated" if getattr(stored, "n_frames", 1) > 1 else "ok"
        except Image.DecompressionBombError:
            return Picture("bomb", format=name, mode=mode)
        except Exception as error:  # noqa: BLE001 - decoders raise whatever they like on broken bytes; the row says so
            cut = isinstance(error, OSError) and "truncated" in str(error)
            return Picture("truncated" if cut else "unreadable", format=name, mode=mode)
    return Picture(code, image, name, mode, transparent)


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
