"""The kernel distance: nought for the same kind of picture, growing with what is done to it."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from stages.evaluate.features import features_of, kernel_distance
from tests.pictures import drawing


def features(pictures: list[Image.Image]) -> np.ndarray:
    return np.array([features_of(picture) for picture in pictures])


REAL = [drawing(seed) for seed in range(120)]
OTHERS = [drawing(seed) for seed in range(1000, 1120)]
FLOOR = kernel_distance(features(REAL), features(OTHERS))


def noisy(image: Image.Image, strength: float) -> Image.Image:
    noise = np.random.default_rng(0).normal(0, strength, (*image.size[::-1], 3))
    return Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize(
    "harm",
    [
        lambda image, much: image.filter(ImageFilter.GaussianBlur(3 * much)),
        lambda image, much: noisy(image, 60 * much),
        lambda image, much: Image.blend(image, Image.new("RGB", image.size, (255, 0, 0)), 0.4 * much),
    ],
    ids=["blur", "noise", "colour"],
)
def test_harm_raises_it_step_by_step(harm: object) -> None:
    values = [
        kernel_distance(features(REAL), features([harm(image, much) for image in OTHERS]))  # type: ignore[operator]  # a lambda
        for much in (0.5, 1, 2)
    ]
    assert abs(FLOOR) < values[0] < values[1] < values[2]


def test_collapse_raises_it() -> None:
    assert kernel_distance(features(REAL), features(OTHERS[:4] * 30)) > 3 * abs(FLOOR)


def test_it_is_unbiased_and_symmetric_enough() -> None:
    assert abs(FLOOR) < 1
    own = kernel_distance(features(REAL), features(REAL))
    assert own < abs(FLOOR) + 1
    with pytest.raises(ValueError, match="at least two"):
        kernel_distance(features(REAL), features(REAL[:1]))


def test_kernel_by_hand() -> None:
    """One dimension, x = -1, 1 and y = 1, 3 after scaling by mean 0, deviation 1: k(a, b) = (ab + 1)^3."""
    real, drawn = np.array([[-1.0], [1.0]]), np.array([[1.0], [3.0]])
    within = (0**3 + 0**3) / 2 + (4**3 + 4**3) / 2
    across = (0**3 + (-2) ** 3 + 2**3 + 4**3) / 4
    assert kernel_distance(real, drawn) == pytest.approx(within - 2 * across, rel=1e-4)
