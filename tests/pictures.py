"""Pictures drawn by code: every odd format that people bring."""

import io
import struct
import zlib

import cv2
import numpy as np
from PIL import Image, ImageCms, ImageDraw


def drawing(seed: int, size: tuple[int, int] = (64, 64)) -> Image.Image:
    """Shapes and colours that belong to the seed alone: no two look alike."""
    random = np.random.default_rng(seed)
    colours = [tuple(int(c) for c in colour) for colour in random.integers(0, 256, (7, 3))]
    image = Image.new("RGB", size, colours[0])
    pen = ImageDraw.Draw(image)
    for colour in colours[1:]:
        x, y = (int(random.integers(0, edge)) for edge in size)
        width, height = (int(random.integers(edge // 5, edge // 2)) for edge in size)
        shape = pen.ellipse if random.integers(2) else pen.rectangle
        shape((x, y, x + width, y + height), fill=colour)
    return image


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def rotated_by_exif(image: Image.Image) -> bytes:
    """Stored lying on its side, with the tag that says so (orientation 6: turn right to see it upright)."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(image.transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif, quality=95, subsampling=0)


def sixteen_bit(grey: Image.Image) -> bytes:
    return encoded(Image.fromarray(np.asarray(grey.convert("L"), dtype=np.uint16) * 257))


def with_profile(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """An RGB picture whose profile swaps nothing: converting must leave it nearly as it is."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    return encoded(image, kind, icc_profile=profile.tobytes(), **options)


def with_other_profile(image: Image.Image) -> tuple[bytes, Image.Image]:
    """A PNG whose profile has red and blue change places, and what it shows."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, blue = profile.index(b"rXYZ"), profile.index(b"bXYZ")  # in the table of tags, before their contents
    profile[red], profile[blue] = profile[blue], profile[red]
    stored = Image.merge("RGB", image.split()[::-1])
    return encoded(stored, icc_profile=bytes(profile)), image


def sixteen_bit_colours(image: Image.Image) -> bytes:
    """A PNG of three channels of 16 bits, which Pillow can't write."""
    raw = (np.asarray(image)[..., ::-1].astype(np.uint16) * 257).copy()
    return bytes(cv2.imencode(".png", raw)[1])


def bomb() -> bytes:
    """A PNG of a few hundred bytes that says it is 60,000 x 60,000 px."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )
