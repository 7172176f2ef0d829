"""Merge methods: identities, whatever the tensors."""

import inspect
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.merge import methods
from stages.merge.measures import angle, columns, pairwise_cosine, thresholds
from stages.merge.methods import METHODS
from stages.merge.params import TAKES, Recipe

SHAPES = st.sampled_from([(7,), (5, 6), (4, 3, 3, 3), (1, 1), (2, 40)])
RATIOS = st.floats(0, 1, allow_subnormal=False)
DRAWS = (0, "x", "name", 0)


def tensors(
    shape: tuple[int, ...], seed: int, number: int = 3, dtype: torch.dtype = torch.float16
) -> list[torch.Tensor]:
    """Random numbers as half precision has them, in float32."""
    draws = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=draws).to(dtype).float() for _ in range(number)]


def run(name: str, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor, ratio: float, **knobs: Any) -> torch.Tensor:
    """A method of any kind on a, b and c: `models` are b and c."""
    chosen, operands = METHODS[name], {"a": a, "b": b, "c": c, "models": [b, c]}
    knobs = {
        "ratio": ratio,
        "ratio_c": 0.25,
        "density": 0.5,
        "epsilon": 0.1,
        "draws": DRAWS,
        "weights": [1.0, 1.0],
    } | knobs
    if chosen.measure:
        given = {"density": knobs["density"]} if name == "ties" else {}
        knobs["measured"] = chosen.measure(lambda: iter([operands]), **given)
    wanted = inspect.signature(chosen.function).parameters
    found: torch.Tensor = chosen.function(**{key: value for key, value in (operands | knobs).items() if key in wanted})
    return found


def test_every_method_is_there_with_its_knobs() -> None:
    given = {"ratio", "weights", "draws", "measured"}
    assert METHODS.keys() == TAKES.keys() - {"lora", "extract_lora"}
    for name, chosen in METHODS.items():
        wanted = set(inspect.signature(chosen.function).parameters)
        assert wanted - given == TAKES[name] - {"seed"} - ({"density"} if name == "ties" else set()), name
        assert ("draws" in wanted) == ("seed" in TAKES[name])
        assert chosen.function.__doc__
    fields = Recipe.model_fields.keys()
    assert set().union(*TAKES.values()) <= fields


@settings(deadline=None, max_examples=40)
@given(SHAPES, st.integers(0, 99))
def test_ratio_0_is_a(shape: tuple[int, ...], seed: int) -> None:
    a, b, c = tensors(shape, seed)
    for name in METHODS.keys() - {"cosine_a", "cosine_b", "average", "triple_sum", "twice_sum"}:
        torch.testing.assert_close(run(name, a, b, c, 0.0), a, atol=1e-5, rtol=1e-5, msg=name)
    for name in ("triple_sum", "twice_sum"):
        torch.testing.assert_close(run(name, a, b, c, 0.0, ratio_c=0.0), a, msg=name)
    assert torch.equal(run("average", a, b, c, 0.0), b)


@settings(deadline=None, max_examples=40)
@given(SHAPES, st.integers(0, 99))
def test_ratio_1_is_b(shape: tuple[int, ...], seed: int) -> None:
    a, b, c = tensors(shape, seed)
    for name in ("weighted_sum", "sigmoid", "inverse_sigmoid", "slerp", "slerp_deltas"):
        torch.testing.assert_close(run(name, a, b, c, 1.0), b, atol=1e-5, rtol=1e-5, msg=name)
    assert torch.equal(run("weighted_sum", a, b, c, 1.0), b)
    assert torch.equal(run("weighted_sum", a, b, c, 0.0), a)


@settings(deadline=None, max_examples=40)
@given(SHAPES, st.integers(0, 99), RATIOS)
def test_a_and_b_change_places(shape: tuple[int, ...], seed: int, ratio: float) -> None:
    a, b, c = tensors(shape, seed)
    for name in ("weighted_sum", "sigmoid", "inverse_sigmoid", "slerp", "slerp_deltas"):
        torch.testing.assert_close(
            run(name, a, b, c, ratio), run(name, b, a, c, 1 - ratio), atol=1e-4, rtol=1e-4, msg=name
        )


@settings(deadline=None, max_examples=40)
@given(SHAPES, st.integers(0, 99), RATIOS)
def test_a_model_with_itself(shape: tuple[int, ...], seed: int, ratio: float) -> None:
    (a,) = tensors(shape, seed, 1)
    for name in METHODS.keys() - {"triple_sum"}:
        assert torch.equal(run(name, a, a, a, ratio), a), name
    torch.testing.assert_close(run("triple_sum", a, a, a, ratio), a)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=5), st.integers(0, 99))
def test_average(weights: list[float], seed: int) -> None:
    models = tensors((6, 5), seed, len(weights))
    expected = np.average(torch.stack(models).double().numpy(), axis=0, weights=weights)
    found = methods.average(models, weights, 1.0)
    torch.testing.assert_close(found.double(), torch.from_numpy(expected), atol=1e-5, rtol=1e-5)
    assert torch.equal(methods.average([models[0]] * len(weights), weights, 1.0), models[0])


@settings(deadline=None, max_examples=40)
@given(RATIOS)
def test_sigmoids_undo_each_other_and_meet_in_the_middle(ratio: float) -> None:
    zero, one = torch.zeros(1), torch.ones(1)
    there = float(methods.sigmoid(zero, one, ratio))
    assert math.isclose(float(methods.inverse_sigmoid(zero, one, there)), ratio, abs_tol=2e-3)
    assert there <= ratio + 1e-6 if ratio <= 0.5 else there >= ratio - 1e-6


@settings(deadline=None, max_examples=40)
@given(SHAPES, st.integers(0, 99))
def test_add_difference(shape: tuple[int, ...], seed: int) -> None:
    a, b, _ = tensors(shape, seed)
    assert torch.equal(run("add_difference", a, b, b, 0.7), a)
    torch.testing.assert_close(run("add_difference", a, b, a, 1.0), b, atol=1e-6, rtol=1e-6)
    assert torch.equal(run("train_difference", a, b, b, 0.7), a)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 99))
def test_slerp_turns_and_keeps_lengths(seed: int) -> None:
    a, b, c = tensors((400,), seed, dtype=torch.float32)
    a, b = a / a.norm(), b / b.norm()
    third = run("slerp", a, b, c, 1 / 3)
    assert math.isclose(float(third.norm()), 1, abs_tol=1e-5)
    assert math.isclose(math.acos(float(a @ third)) * 3, math.acos(float(a @ b)), rel_tol=1e-3)
    assert torch.equal(run("slerp", a, 2 * a, c, 0.5), torch.lerp(a, 2 * a, 0.5))
    assert torch.equal(run("slerp", a, 0 * a, c, 0.5), a / 2)


@settings(deadline=None, max_examples=40)
@given(SHAPES, st.integers(0, 99))
def test_one_model_and_everything_kept_is_that_model(shape: tuple[int, ...], seed: int) -> None:
    a, b, _ = tensors(shape, seed)
    for name in ("task_arithmetic", "ties", "dare", "dare_ties"):
        knobs = {"models": [b], "weights": [1.0], "density": 1.0}
        chosen = METHODS[name]
        if chosen.measure:
            knobs["measured"] = thresholds(lambda: iter([{"a": a, "models": [b]}]), 1.0)
        wanted = inspect.signature(chosen.function).parameters
        values = {
            key: value for key, value in ({"a": a, "ratio": 1.0, "draws": DRAWS} | knobs).items() if key in wanted
        }
        assert torch.equal(chosen.function(**values).half(), b.half()), name


def test_ties_by_hand() -> None:
    """The paper's figure 1 in small: trim to two of four, elect, mean over those that agree."""
    a = torch.zeros(4)
    b, c = torch.tensor([4.0, -3.0, 1.0, 0.5]), torch.tensor([2.0, 5.0, -1.0, 0.1])
    assert run("ties", a, b, c, 1.0).tolist() == [3.0, 5.0, 0.0, 0.0]
    assert run("ties", a, b, c, 1.0, weights=[3.0, 1.0]).tolist() == [3.5, -3.0, 0.0, 0.0]


@settings(deadline=None, max_examples=40)
@given(SHAPES, st.integers(0, 99), st.floats(0.01, 1), st.integers(1, 4))
def test_thresholds_are_exact_and_chunks_do_not_matter(
    shape: tuple[int, ...], seed: int, density: float, pieces: int
) -> None:
    a, b, c = tensors(shape, seed)
    operands = [{"a": x, "models": [y, z]} for x, y, z in zip(*(t.chunk(pieces) for t in (a, b, c)), strict=True)]
    found = thresholds(lambda: iter(operands), density)
    for least, theta in zip(found, (b, c), strict=True):
        size = (theta - a).abs().flatten().sort(descending=True).values
        wanted = max(1, int(density * len(size)))
        assert least == (0 if density == 1 else float(size[wanted - 1]))


@settings(deadline=None, max_examples=40)
@given(SHAPES, st.integers(0, 99), st.integers(1, 4))
def test_measures_of_chunks_are_those_of_the_whole(shape: tuple[int, ...], seed: int, pieces: int) -> None:
    a, b, c = tensors(shape, seed)
    whole = [{"a": a, "b": b, "c": c, "models": [b, c]}]
    parts = [
        {"a": x, "b": y, "c": z, "models": [y, z]}
        for x, y, z in zip(*(t.chunk(pieces) for t in (a, b, c)), strict=True)
    ]
    assert angle(lambda: iter(whole)) == pytest.approx(angle(lambda: iter(parts)))
    assert pairwise_cosine(lambda: iter(whole)) == pytest.approx(pairwise_cosine(lambda: iter(parts)))
    one, other = columns(lambda: iter(whole)), columns(lambda: iter(parts))
    torch.testing.assert_close(one.columns, other.columns)
    assert one.whole == pytest.approx(other.whole)
    torch.testing.assert_close(one.columns[0], torch.nn.functional.cosine_similarity(a, b, dim=0), atol=1e-5, rtol=1e-4)


def test_what_is_dropped_is_made_up_for() -> None:
    a, b, c = torch.zeros(40, 500), torch.full((40, 500), 2.0), torch.zeros(40, 500)
    for name in ("dare", "della"):
        found = run(name, a, b, c, 1.0, density=0.4)
        assert float(found.mean()) == pytest.approx(2, rel=0.05), name
        assert 0.35 < float((found != 0).float().mean()) < 0.45, name


def test_della_keeps_large_numbers_more_often() -> None:
    a, c = torch.zeros(200, 100), torch.zeros(200, 100)
    b = torch.arange(1.0, 101).repeat(200, 1)
    kept = (run("della", a, b, c, 1.0, density=0.5, epsilon=0.4) != 0).float().mean(dim=0)
    assert float(kept[:10].mean()) < 0.25
    assert float(kept[-10:].mean()) > 0.75


def test_draws_follow_from_what_they_are_for() -> None:
    a, b, c = tensors((50, 50), 1)
    one = run("dare", a, b, c, 1.0)
    assert torch.equal(one, run("dare", a, b, c, 1.0))
    assert not torch.equal(one, run("dare", a, b, c, 1.0, draws=(1, *DRAWS[1:])))
    assert not torch.equal(one, run("dare", a, b, c, 1.0, draws=(0, "x", "other", 0)))
    masks = [(run("dare", a, b, a, 1.0, weights=w) != a) for w in ([1.0, 0.0], [0.0, 1.0])]
    assert not torch.equal(masks[0], (run("dare", a, a, b, 1.0, weights=[0.0, 1.0]) != a))


def test_model_stock() -> None:
    a = torch.zeros(4)
    same, across = torch.tensor([1.0, 0, 0, 0]), torch.tensor([0, 1.0, 0, 0])
    torch.testing.assert_close(run("model_stock", a, same, same, 1.0), same)
    assert not run("model_stock", a, same, across, 1.0).any()
    assert not run("model_stock", a, same, -same, 1.0).any()
    half = torch.tensor([1.0, 1.0, 0, 0])  # cosine 1 / sqrt 2: t = 2 c / (1 + c)
    cosine = 1 / math.sqrt(2)
    expected = 2 * cosine / (1 + cosine) * (same + half) / 2
    torch.testing.assert_close(run("model_stock", a, same, half, 1.0), expected)


def test_train_difference_learns_what_is_new() -> None:
    b, c = torch.tensor([1.0]), torch.tensor([0.0])
    assert float(run("train_difference", c, b, c, 1.0)) == pytest.approx(0.9)
    assert float(run("train_difference", b, b, c, 1.0)) == pytest.approx(1.0)  # has it already


def test_smooth_add_takes_out_single_peaks() -> None:
    a, c = torch.zeros(9, 9), torch.zeros(9, 9)
    peak = c.clone()
    peak[4, 4] = 100
    assert not run("smooth_add", a, peak, c, 1.0).any()
    torch.testing.assert_close(run("smooth_add", a, torch.full((9, 9), 3.0), c, 0.5), torch.full((9, 9), 1.5))
