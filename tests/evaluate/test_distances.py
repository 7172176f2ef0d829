"""Nought for the same kind of picture, growing with what is done to it; as the papers have it, by hand."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stages.core.errors import StageError
from stages.evaluate.classical import Features
from stages.evaluate.distances import KernelDistance, Scale, inside, interval, share_interval, vendi, weighted_mean
from stages.evaluate.extractors import BATCH, Classical, Extractor, open_extractor, read_all
from stages.evaluate.params import EvaluateParams
from tests.conftest import ROOT
from tests.evaluate.harm import HARM, OTHERS, REAL, STRENGTHS, noisy

BASE, CLIP = ROOT / "models" / "tiny-sd", ROOT / "models" / "tiny-sd" / "clip"
EXTRACTORS = ["classical", "vae", "clip:tiny-sd"]
SETS = arrays(np.float64, st.tuples(st.integers(2, 12), st.just(3)), elements=st.floats(-3, 3))


Eye = tuple[Extractor, Scale, Features, Features]


@pytest.fixture(scope="module", params=EXTRACTORS)
def eye(request: pytest.FixtureRequest) -> Eye:
    """An extractor, its scale, and what it makes of two sets of real pictures."""
    extractor = open_extractor(EvaluateParams(extractor=request.param), BASE, Path("nowhere"), CLIP)
    real = read_all(extractor, REAL)
    scale = Scale(real, extractor.kinds)
    return extractor, scale, scale.apply(real), scale.apply(read_all(extractor, OTHERS))


@pytest.mark.parametrize("harm", HARM)
def test_harm_raises_the_kernel_distance_step_by_step(eye: Eye, harm: str) -> None:
    extractor, scale, real, others = eye
    values = [
        KernelDistance(real, scale.apply(read_all(extractor, [HARM[harm](image, much) for image in OTHERS])))()
        for much in STRENGTHS
    ]
    floor = abs(KernelDistance(real, others)())
    assert floor < values[1] < values[2]
    assert values[0] < values[1]


def test_collapse_raises_the_distance_and_lowers_recall_and_diversity(eye: Eye) -> None:
    _, _, real, others = eye
    collapsed = [np.concatenate([others[:number]] * (120 // number)) for number in (40, 12, 4)]
    distances = [KernelDistance(real, others)(), *(KernelDistance(real, each)() for each in collapsed)]
    assert distances[0] < distances[-1]
    assert distances[1] < distances[-1]
    for values in (
        [inside(real, each, 3).mean() for each in (others, *collapsed)],
        [vendi(e) for e in (others, *collapsed)],
    ):
        assert values == sorted(values, reverse=True)
        assert values[-1] < values[0]


def test_noise_lowers_precision() -> None:
    """With classical features. Blur doesn't, with any: it pulls pictures into the middle of the real ones."""
    real = read_all(Classical(), REAL)
    scale = Scale(real, Classical.kinds)
    noised = [scale.apply(read_all(Classical(), [noisy(image, much) for image in OTHERS])) for much in (0, 10, 30)]
    values = [inside(each, scale.apply(real), 3).mean() for each in noised]
    assert values[0] > values[1] > values[2]


def test_a_picture_is_read_alike_in_any_company(eye: Eye) -> None:
    extractor, scale, real, _ = eye
    for count in (1, BATCH + 3):
        np.testing.assert_array_equal(scale.apply(read_all(extractor, REAL[:count])), real[:count])
    assert read_all(extractor, []).shape == (0, real.shape[1])


def test_the_kernel_by_hand() -> None:
    """One dimension, scaled: x = -1, 1, y = 1, 3; k(a, b) = (ab + 1)^3."""
    real, drawn = np.array([[-1.0], [1.0]]), np.array([[1.0], [3.0]])
    within = (0**3 + 0**3) / 2 + (4**3 + 4**3) / 2
    across = (0**3 + (-2) ** 3 + 2**3 + 4**3) / 4
    assert KernelDistance(real, drawn)() == pytest.approx(within - 2 * across)
    with pytest.raises(ValueError, match="at least two"):
        KernelDistance(real, real[:1])


@given(SETS, SETS)
def test_weights_are_copies_less_a_picture_with_itself(x: np.ndarray, y: np.ndarray) -> None:
    """Each picture twice gives the same means: pairs of a picture with its own copy are left out."""
    distance = KernelDistance(x, y)
    twos = np.full(len(x), 2.0), np.full(len(y), 2.0)
    assert distance(*twos) == pytest.approx(distance(), abs=1e-6 * (1 + abs(distance())))
    assert distance() == pytest.approx(KernelDistance(y, x)(), abs=1e-6 * (1 + abs(distance())))


def test_inside_by_hand() -> None:
    """Balls of radius 1 about 0, 1 and of 9 about 10 (k = 1)."""
    manifold = np.array([[0.0], [1.0], [10.0]])
    points = np.array([[-1.0], [-1.1], [2.0], [15.0], [20.0]])
    assert inside(points, manifold, 1).tolist() == [1, 0, 1, 1, 0]


@given(SETS.filter(lambda x: np.linalg.norm(x, axis=1).min() > 1e-3))
def test_diversity_is_between_one_and_all(x: np.ndarray) -> None:
    assert 1 - 1e-6 <= vendi(x) <= len(x) + 1e-6
    assert vendi(np.repeat(x[:1], 5, axis=0)) == pytest.approx(1)
    assert vendi(np.concatenate([x, x])) == pytest.approx(vendi(x))
    assert vendi(np.eye(4)) == pytest.approx(4)


def test_intervals_hold_the_value_and_shrink_with_more_pictures() -> None:
    values = np.random.default_rng(0).normal(3, 1, 400)

    def of(count: int) -> tuple[float, float]:
        some = values[:count]
        found = interval(lambda weights: weighted_mean(some, weights), count, seed=0, name="x")
        assert found
        assert found[0] < some.mean() < found[1]
        return found

    wide, narrow = of(25), of(400)
    assert 2.5 < (wide[1] - wide[0]) / (narrow[1] - narrow[0]) < 6  # about the root of 16
    assert narrow[1] - narrow[0] == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.15)
    assert of(25) == wide
    assert interval(lambda _: 0.0, 1, seed=0, name="x") is None


def test_shares_of_nothing_are_uncertain_too() -> None:
    """Wilson, by hand: the upper end for none of n is z^2 / (n + z^2), z = 1.96."""
    low, high = share_interval(np.zeros(32)) or (1.0, 1.0)
    assert low == pytest.approx(0, abs=1e-12)
    assert high == pytest.approx(1.96**2 / (32 + 1.96**2), rel=1e-3)
    other, one = share_interval(np.ones(32)) or (0.0, 0.0)
    assert other == pytest.approx(1 - high)
    assert one == pytest.approx(1)
    assert share_interval(np.zeros(0)) is None


def test_an_extractor_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"evaluate.extractor: the folder .*dino is missing"):
        open_extractor(EvaluateParams(extractor="model:folder:dino"), BASE, tmp_path, CLIP)
    (tmp_path / "dino").mkdir()
    with pytest.raises(StageError, match="can't be opened"):
        open_extractor(EvaluateParams(extractor="model:folder:dino"), BASE, tmp_path, CLIP)


def test_any_picture_model_will_do(tmp_path: Path) -> None:
    import torch
    from transformers import ViTConfig, ViTImageProcessorPil, ViTModel

    torch.manual_seed(0)
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    ViTModel(ViTConfig(**size, image_size=32, patch_size=8)).save_pretrained(tmp_path / "vit")
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "vit")
    extractor = open_extractor(EvaluateParams(extractor="model:folder:vit"), BASE, tmp_path, CLIP)
    assert extractor.kinds == (16,)
    assert extractor.identity["name"] == "model:folder:vit"
    assert len(str(extractor.identity["sha256"])) == 64
    assert read_all(extractor, REAL[:3]).shape == (3, 16)
