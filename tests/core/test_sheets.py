"""Sheets of pictures."""

import pytest
from PIL import Image

from stages.core.sheets import contact_sheet, table_sheet
from tests.pictures import drawing


def test_every_picture_is_shown_enlarged() -> None:
    pictures = [drawing(seed, (64, 64)) for seed in range(5)]
    sheet = contact_sheet(pictures, ["a very long prompt that can't fit above its picture at all"] * 5, columns=2)
    assert sheet.size == (2 * (128 + 6) + 6, 3 * (128 + 18 + 6) + 6)
    assert sheet.getpixel((6 + 3, 6 + 18 + 3)) == pictures[0].getpixel((1, 1))


def test_pictures_of_differing_sizes_are_centred_whole() -> None:
    sizes = [(64, 32), (16, 64), (64, 64)]
    pictures = [Image.new("RGB", size, colour) for size, colour in zip(sizes, ("red", "green", "blue"), strict=True)]
    sheet = contact_sheet(pictures, ["wide", "high\nand more", "square"], columns=3)
    assert sheet.size == (3 * (128 + 6) + 6, 128 + 18 + 12)
    for number, (picture, size) in enumerate(zip(pictures, sizes, strict=True)):
        cell = sheet.crop((6 + number * 134, 24, 6 + number * 134 + 128, 24 + 128))
        left, top = (128 - 2 * size[0]) // 2, (128 - 2 * size[1]) // 2
        inside = cell.crop((left, top, left + 2 * size[0], top + 2 * size[1]))
        assert inside.tobytes() == picture.resize((2 * size[0], 2 * size[1])).tobytes()
        assert cell.getpixel((0, 0)) == ((255, 255, 255) if size != (64, 64) else picture.getpixel((0, 0)))


@pytest.mark.parametrize("size", [(16, 16), (48, 16)])
def test_a_table_has_each_picture_at_its_place(size: tuple[int, int]) -> None:
    rows = [[drawing(10 * row + column, size) for column in range(3)] for row in range(2)]
    sheet = table_sheet(rows, ["1", "2", "a long label that can't fit"], ["one", "two"], "what " * 60)
    factor = -(-128 // size[0])
    larger = (size[0] * factor, size[1] * factor)
    large = [picture.resize(larger, Image.Resampling.NEAREST) for row in rows for picture in row]
    wanted = {picture.tobytes() for picture in large}
    width, height = large[0].size
    right, bottom = sheet.size[0] - 6, sheet.size[1] - 6
    found = {
        sheet.crop((x - width, y - height, x, y)).tobytes()
        for x in range(right, right - 3 * (width + 6), -width - 6)
        for y in range(bottom, bottom - 2 * (height + 6), -height - 6)
    }
    assert found == wanted
