"""The settings in a PNG, as other programs read them."""

from stages.core.sampling import Drawing, contact_sheet
from stages.sample.parameters import parameters_text
from stages.sample.params import SampleParams
from tests.pictures import drawing


def test_text() -> None:
    params = SampleParams(negative="blurry", steps=20, guidance=7.0, scheduler="euler_a")
    assert parameters_text(params, Drawing("a cat, sitting", 5), 64, "0123456789abcdef") == (
        "a cat, sitting\nNegative prompt: blurry\n"
        "Steps: 20, Sampler: Euler a, CFG scale: 7.0, Seed: 5, Size: 64x64, Model hash: 0123456789, RNG: CPU"
    )
    assert "Negative" not in parameters_text(SampleParams(), Drawing("x", 0), 64, "0")


def test_contact_sheet_shows_every_picture_enlarged() -> None:
    pictures = [drawing(seed, (64, 64)) for seed in range(5)]
    sheet = contact_sheet(pictures, ["a very long prompt that can't fit above its picture at all"] * 5, columns=2)
    assert sheet.size == (2 * (128 + 6) + 6, 3 * (128 + 18 + 6) + 6)
    assert sheet.getpixel((6 + 3, 6 + 18 + 3)) == pictures[0].getpixel((1, 1))
