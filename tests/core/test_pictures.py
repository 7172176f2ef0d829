"""Every odd format becomes an upright sRGB picture, and every broken one a code."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from stages.core.pictures import SHOWN, Picture, decode
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
        (encoded(IMAGE, "JPEG")[:-3], "truncated"),
        (bomb(), "bomb"),
    ],
    ids=["empty", "header", "html", "png_cut", "jpeg_cut", "jpeg_cut_by_a_byte", "bomb"],
)
def test_broken_files_are_codes(data: bytes, code: str) -> None:
    picture = opened(data)
    assert (picture.code, picture.image) == (code, None)


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_may_lack_its_end_alone(progressive: bool) -> None:
    whole = encoded(drawing(4, (333, 257)), "JPEG", quality=90, progressive=progressive)
    for end in (1, 2):
        picture = opened(whole[:-end])
        assert picture.code == "missing_eoi"
        assert difference(picture, Image.open(io.BytesIO(whole))) == 0
    cut = [opened(whole[:-end]) for end in range(3, 40)]
    assert sum(picture.code == "truncated" for picture in cut) > 30
    for picture in cut:  # where the last bytes said nothing, nothing is missing
        assert picture.image is None or difference(picture, Image.open(io.BytesIO(whole))) == 0


def test_reduced_pictures_keep_their_size_in_the_row() -> None:
    large = drawing(5, (900, 700))
    for data in (encoded(large), encoded(large, "JPEG", quality=95), rotated_by_exif(large)):
        picture = decode(data, WHITE, 10_000_000, side=128)
        assert (picture.width, picture.height) == (900, 700)
        assert difference(picture, large.resize((165, 128), Image.Resampling.BOX)) < 3
    assert difference(decode(encoded(IMAGE), WHITE, 10_000_000, side=128), IMAGE) == 0  # never enlarged


def test_samples_stay_ycbcr_where_a_jpeg_says_so_and_has_no_profile() -> None:
    def mode(data: bytes) -> str:
        picture = decode(data, WHITE, 10_000_000, least=16)
        assert picture.image is not None
        return picture.image.mode

    jfif = encoded(IMAGE, "JPEG")
    bare = jfif[:2] + jfif[20:]  # without its APP0, as cameras write them
    assert b"JFIF" not in bare
    assert mode(jfif) == mode(bare) == "YCbCr"
    for data in (
        encoded(IMAGE, "JPEG", keep_rgb=True),
        with_profile(IMAGE, "JPEG"),
        encoded(IMAGE),
        encoded(IMAGE.convert("L"), "JPEG"),
    ):
        assert mode(data) == "RGB"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_box_is_where_the_picture_lies(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = decode(encoded(drawing(2, (402, 301)), "JPEG", exif=exif), WHITE, 10_000_000, least=75)
    assert picture.image is not None
    lies = orientation > 4
    assert picture.image.size == ((76, 101) if lies else (101, 76))
    left, top, right, bottom = picture.box
    assert (right - left, bottom - top) == ((75.25, 100.5) if lies else (100.5, 75.25))
    corner = Image.new("L", (2, 2))
    corner.putpixel((0, 0), 255)  # where stored pixels begin
    corner.getexif()[0x0112] = orientation
    turned = np.asarray(ImageOps.exif_transpose(corner))
    y, x = (int(place) for place in np.argwhere(turned == 255)[0])
    assert left == (0 if x == 0 else picture.image.width - (right - left))
    assert top == (0 if y == 0 else picture.image.height - (bottom - top))


def test_broken_exif_is_none() -> None:
    whole = bytearray(rotated_by_exif(IMAGE))
    start = whole.index(b"Exif\0\0") + 6
    whole[start : start + 8] = b"\xff" * 8
    assert opened(bytes(whole)).code == "ok"


def test_profiles_have_names() -> None:
    assert "sRGB" in opened(with_profile(IMAGE)).profile
    assert opened(encoded(IMAGE, icc_profile=b"junk")).profile == ""


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
    assert (picture.image is None) == (picture.code not in SHOWN)
    # What inspect could open preprocess can.
    assert decode(broken, WHITE, 10_000_000, least=1).code == picture.code
