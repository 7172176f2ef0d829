"""Every odd format becomes an upright sRGB picture, and every broken one a code."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from stages.core.pictures import Picture, decode
from tests.pictures import bomb, drawing, encoded, rotated_by_exif, sixteen_bit, with_profile

WHITE = (255, 255, 255)
IMAGE = drawing(3, (48, 32))


def opened(data: bytes, background: tuple[int, int, int] = WHITE) -> Picture:
    return decode(data, background, 10_000_000)


def difference(picture: Picture, expected: Image.Image) -> float:
    assert picture.image is not None
    assert picture.image.mode == "RGB"
    assert picture.image.size == expected.size
    return float(np.abs(np.asarray(picture.image, float) - np.asarray(expected.convert("RGB"), float)).mean())


@pytest.mark.parametrize(
    ("data", "expected", "most"),
    [
        (encoded(IMAGE), IMAGE, 0),
        (encoded(IMAGE, "JPEG", quality=95, subsampling=0), IMAGE, 6),
        (encoded(IMAGE, "WEBP", lossless=True), IMAGE, 0),
        (encoded(IMAGE.convert("L")), IMAGE.convert("L"), 0),
        (encoded(IMAGE.convert("1")), IMAGE.convert("1"), 0),
        (encoded(IMAGE.quantize(64)), IMAGE.quantize(64), 0),
        (encoded(IMAGE.convert("CMYK"), "JPEG", quality=95), IMAGE, 12),
        (sixteen_bit(IMAGE), IMAGE.convert("L"), 0),
        (with_profile(IMAGE), IMAGE, 1),
        (rotated_by_exif(IMAGE), IMAGE, 6),
    ],
    ids=["png", "jpeg", "webp", "grey", "one_bit", "palette", "cmyk", "16_bit", "profile", "exif"],
)
def test_formats(data: bytes, expected: Image.Image, most: float) -> None:
    picture = opened(data)
    assert picture.code == "ok"
    assert difference(picture, expected) <= most


def test_alpha_lies_over_the_background() -> None:
    image = Image.new("RGBA", (4, 2), (10, 20, 30, 255))
    image.paste((200, 0, 0, 0), (0, 0, 2, 2))
    picture = opened(encoded(image), (0, 255, 0))
    assert picture.image is not None
    assert picture.image.getpixel((0, 0)) == (0, 255, 0)
    assert picture.image.getpixel((3, 1)) == (10, 20, 30)
    assert picture.transparent == 0.5


def test_palette_with_a_transparent_colour() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    picture = opened(encoded(image, transparency=0), (0, 255, 0))
    assert picture.image is not None
    assert [picture.image.getpixel((x, 0)) for x in (0, 1)] == [(0, 255, 0), (0, 0, 255)]


def test_animations_give_their_first_frame() -> None:
    data = encoded(drawing(1), "GIF", save_all=True, append_images=[drawing(2)])
    picture = opened(data)
    assert picture.code == "animated"
    assert difference(picture, drawing(1)) < 12


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "unreadable"),
        (b"GIF89a", "unreadable"),
        (b"<html>not found</html>", "unreadable"),
        (encoded(IMAGE)[:-200], "truncated"),
        (encoded(IMAGE, "JPEG")[:-200], "truncated"),
        (bomb(), "bomb"),
    ],
    ids=["empty", "header", "html", "png_cut", "jpeg_cut", "bomb"],
)
def test_broken_files_are_codes(data: bytes, code: str) -> None:
    picture = opened(data)
    assert (picture.code, picture.image) == (code, None)


def test_the_limit_on_pixels_is_kept_before_decoding() -> None:
    assert decode(encoded(IMAGE), WHITE, IMAGE.width * IMAGE.height).code == "ok"
    assert decode(encoded(IMAGE), WHITE, IMAGE.width * IMAGE.height - 1).code == "bomb"


def test_formats_that_start_programs_stay_shut() -> None:
    assert opened(encoded(IMAGE, "EPS")).code == "unreadable"


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"]), st.booleans(), st.data())
def test_no_bytes_can_raise(kind: str, several: bool, data: st.DataObject) -> None:
    frames = {"save_all": True, "append_images": [drawing(8, (24, 24))]} if several and kind in ("GIF", "TIFF") else {}
    original = bytearray(encoded(drawing(7, (24, 24)), kind, **frames))
    for _ in range(data.draw(st.integers(1, 6))):
        original[data.draw(st.integers(0, len(original) - 1))] = data.draw(st.integers(0, 255))
    broken = bytes(original[: data.draw(st.integers(0, len(original)))])
    picture = opened(broken)
    assert (picture.image is None) == (picture.code not in ("ok", "animated"))
