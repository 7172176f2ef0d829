"""Variants: true to their captions, filled to the corners, drawn by key."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from stages.preprocess.buckets import Size
from stages.preprocess.params import PreprocessParams
from stages.preprocess.sides import names_sides, swap_sides
from stages.preprocess.transform import Crop, Upright
from stages.preprocess.variants import Variant, drawn, mirrored
from tests.pictures import drawing

WORDS = [
    "left",
    "rightwards",
    "leftmost",
    "right-handed",
    "left_hand",
    "clockwise",
    "counterclockwise",
    "cat",
    "bright",
]
CASES = [str.lower, str.upper, str.capitalize]
WORD = st.builds(lambda word, case: case(word), st.sampled_from(WORDS), st.sampled_from(CASES))
CAPTION = st.lists(st.tuples(WORD, st.sampled_from([" ", ", ", "-", '"', "/", "\n"]))).map(
    lambda parts: "".join(word + gap for word, gap in parts)
)


def params(**augment: object) -> PreprocessParams:
    return PreprocessParams.model_validate({"max_upscale": 4.0, "augment": {"variants": 4, **augment}})


@pytest.mark.parametrize(
    ("caption", "swapped"),
    [
        ("a left hand", "a right hand"),
        ("Right! RIGHT, right.", "Left! LEFT, left."),
        ("turned left-handed", "turned right-handed"),
        ("'leftwards' arrow", "'rightwards' arrow"),
        ("anti-clockwise, Anticlockwise, counterclockwise", "clockwise, Clockwise, clockwise"),
        ("CLOCKWISE", "COUNTERCLOCKWISE"),
        ("bright leftovers, upright, copyright", "bright leftovers, upright, copyright"),
    ],
)
def test_sides_are_swapped_as_whole_words_in_their_case(caption: str, swapped: str) -> None:
    assert swap_sides(caption) == swapped
    assert names_sides(caption) == (caption != swapped)
    image = drawing(2, (32, 32))
    for flip, count in ((False, 0), (True, caption == swapped), ("swap", 1)):
        made = mirrored(PreprocessParams.model_validate({"flip": flip}), Variant(0, image, Crop(0, 0), [caption]))
        assert len(made) == count
        assert all(variant.captions == [swapped] for variant in made)
        assert all(np.array_equal(np.asarray(v.image)[:, ::-1], np.asarray(image)) for v in made)


@given(CAPTION)
def test_swapping_twice_changes_nothing(caption: str) -> None:
    assert swap_sides(swap_sides(caption)) == caption


@settings(max_examples=30)
@given(
    st.text("0123456789abcdef", min_size=8, max_size=8),
    st.floats(0, 30),
    st.floats(0, 0.5),
    st.sampled_from([(64, 64), (64, 32), (24, 96)]),
)
def test_a_white_picture_stays_white_to_the_corners(key: str, rotate: float, crop: float, frame: Size) -> None:
    image = Image.new("RGB", (200, 150), (255, 255, 255))
    shown = list(drawn(params(rotate=max(rotate, 0.1), crop=crop), Upright.whole(image), frame, key))
    for variant in shown:
        assert variant.image.size == frame
        assert variant.image.getcolors() == [(frame[0] * frame[1], (255, 255, 255))]


def test_a_turn_is_about_the_middle_and_by_the_angle_drawn() -> None:
    """A horizontal bar through the middle stays there and gets the slope of the draw."""
    image = Image.new("RGB", (256, 256))
    image.paste((255, 255, 255), (0, 126, 256, 130))
    (turned,) = drawn(params(rotate=30.0, variants=1), Upright.whole(image), (128, 128), "ab")
    rows = np.asarray(turned.image.convert("L"), float)
    middles = (rows * np.arange(0.5, 128)[:, None]).sum(0) / rows.sum(0)
    assert abs(middles.mean() - 64) < 1
    slope = np.degrees(np.arctan(np.polyfit(np.arange(128), middles, 1)[0]))
    assert 0.5 < abs(slope) <= 30


def test_a_crop_keeps_its_share_and_lies_inside() -> None:
    across = np.broadcast_to(np.linspace(0, 255, 256), (256, 256))
    image = Image.fromarray(np.stack([across, across.T, across * 0], 2).astype(np.uint8))
    spans = []
    for variant in drawn(params(crop=0.25, variants=20), Upright.whole(image), (64, 64), "ab"):
        shown = np.asarray(variant.image, float)
        spans += [np.ptp(shown[..., 0]) / 255, np.ptp(shown[..., 1]) / 255]
        assert variant.crop.x >= 0
        assert variant.crop.y >= 0
    assert 0.73 <= min(spans) < 0.85
    assert max(spans) <= 1


def test_draws_belong_to_key_variant_and_seed() -> None:
    image = drawing(5, (256, 256))

    def made(key: str, **augment: object) -> list[bytes]:
        values = {"rotate": 8.0, "crop": 0.1, "jitter": 0.1, **augment}
        return [v.image.tobytes() for v in drawn(params(**values), Upright.whole(image), (64, 64), key)]

    assert made("ab") == made("ab")
    assert made("ab", variants=2) == made("ab")[:2]
    assert len({*made("ab"), *made("cd"), *made("ab", seed=1)}) == 12
