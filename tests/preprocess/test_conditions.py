"""Conditions show what they are named for, at the size of their picture."""

import io
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from stages.core.conditions import MAKERS, make_condition
from stages.preprocess.params import Made
from tests.pictures import drawing


def halves() -> Image.Image:
    """Black, and white from the middle on."""
    image = Image.new("RGB", (128, 64))
    image.paste((255, 255, 255), (64, 0, 128, 64))
    return image


def array(name: str, image: Image.Image) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    return np.asarray(make_condition(name, image)).astype(int)


@pytest.mark.parametrize("name", get_args(Made))
def test_each_is_a_picture_of_the_same_size_and_leaves_one_colour_flat(name: str) -> None:
    for size in ((64, 64), (128, 32), (72, 96)):
        made = make_condition(name, drawing(1, size))
        assert (made.mode, made.size) == ("RGB", size)
    flat = array(name, Image.new("RGB", (64, 32), (90, 120, 30)))
    assert (flat == flat[0, 0]).all()
    assert tuple(flat[0, 0]) == ((0, 0, 0) if name in ("canny", "soft_edge") else (90, 120, 30))


def test_edges_are_where_black_meets_white() -> None:
    for name in MAKERS:
        if name in ("canny", "soft_edge"):
            bright = np.flatnonzero(array(name, halves())[32, :, 0])
            assert set(bright) <= {63, 64}, name
            assert array(name, halves()).max() == 255


def test_a_palette_has_few_colours_and_the_picture_s_mean() -> None:
    image = drawing(2, (128, 64))
    made = make_condition("palette", image)
    assert len(made.getcolors(10_000) or []) in range(1, 16 * 8 + 1)
    assert np.allclose(np.asarray(made).mean((0, 1)), np.asarray(image).mean((0, 1)), atol=0.6)


def test_blur_and_tile_lose_detail_and_keep_the_mean() -> None:
    image = drawing(3, (128, 128))
    for name in ("blur", "tile"):
        made = array(name, image)
        assert np.allclose(made.mean((0, 1)), np.asarray(image).mean((0, 1)), atol=3)
        assert np.abs(np.diff(made, axis=1)).max() < np.abs(np.diff(np.asarray(image, int), axis=1)).max()


def test_bytes_are_the_same_each_time() -> None:
    def png(name: str) -> bytes:
        buffer = io.BytesIO()
        make_condition(name, drawing(4, (96, 64))).save(buffer, "PNG")
        return buffer.getvalue()

    for name in MAKERS:
        assert png(name) == png(name)
