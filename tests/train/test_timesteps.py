"""Densities of timesteps: quantiles by hand, and the papers' densities as slopes of their distributions."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stages.train.params import Diffusion
from stages.train.timesteps import draw_times, logit_normal, mode, shifted

MODES = [{"timesteps": "uniform"}, {"timesteps": "logit_normal", "logit_std": 5.0}, {"timesteps": "mode"}]


def at(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_logit_normal_quantiles() -> None:
    """A normal number is below its mean, mean + 1 and mean - 2 deviations with these chances."""
    found = logit_normal(at(0.5, 0.8413447461, 0.0227501319), 0.4, 0.5)
    assert found.tolist() == pytest.approx([1 / (1 + math.exp(-x)) for x in (0.4, 0.9, -0.6)], rel=1e-6)
    assert logit_normal(at(0.5), 0.0, 1.0).item() == 0.5
    assert logit_normal(at(0.0), 0.0, 1.0).item() == 0.0


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (-0.5, 0.6), (1.0, 1.5)])
def test_logit_normal_density(mean: float, std: float) -> None:
    """Eq. 19 of the paper, at t, is one over how fast t rises with the uniform draw."""
    draws, step = torch.linspace(0.05, 0.95, 19, dtype=torch.float64), 1e-6
    times = logit_normal(draws, mean, std)
    slope = (logit_normal(draws + step, mean, std) - logit_normal(draws - step, mean, std)) / (2 * step)
    logits = (times / (1 - times)).log()
    density = torch.exp(-((logits - mean) ** 2) / (2 * std**2)) / (std * math.sqrt(2 * math.pi) * times * (1 - times))
    torch.testing.assert_close(1 / slope, density, rtol=1e-5, atol=0)


def test_mode_by_hand() -> None:
    # sin^2 of 30, 45 and 60 degrees is 1/4, 1/2 and 3/4.
    assert mode(at(0, 1 / 3, 1 / 2, 2 / 3, 1), 1.0).tolist() == pytest.approx([0, 5 / 12, 1 / 2, 7 / 12, 1])
    assert mode(at(0.3), 0.0).item() == pytest.approx(0.3)
    assert mode(at(1 / 3), -1.0).item() == pytest.approx(1 / 4)


@pytest.mark.parametrize("scale", [-1.0, 0.5, 1.29, 1.75])
def test_mode_is_the_papers_read_backwards(scale: float) -> None:
    draws = torch.linspace(0, 1, 101, dtype=torch.float64)
    paper = 1 - draws - scale * ((math.pi / 2 * draws).cos() ** 2 - 1 + draws)
    torch.testing.assert_close(mode(draws, scale).flip(0), paper)
    assert (mode(draws, scale).diff() > -1e-12).all()


def test_shift_by_hand() -> None:
    assert shifted(at(0, 0.25, 0.5, 0.75), 3.0).tolist() == pytest.approx([0, 0.5, 0.75, 0.9])
    assert shifted(at(0.5), 0.5).item() == pytest.approx(1 / 3)


@given(st.floats(0, 0.999), st.floats(0.1, 10), st.floats(0.1, 10))
def test_shifts_multiply(time: float, first: float, second: float) -> None:
    """Shift s makes the ratio of noise to signal, t / (1 - t), s times as large."""
    assert shifted(at(time), 1.0).item() == time
    moved = shifted(at(time), first)
    assert (moved / (1 - moved)).item() == pytest.approx(first * time / (1 - time), rel=1e-9)
    assert shifted(moved, second).item() == pytest.approx(shifted(at(time), first * second).item(), rel=1e-9)


@pytest.mark.parametrize("knobs", MODES)
@pytest.mark.parametrize("shift", [0.3, 1.0, 100.0])
def test_times_rise_with_the_draw_and_stay_below_one(knobs: dict[str, Any], shift: float) -> None:
    objective = Diffusion.model_validate({**knobs, "shift": shift})
    ends = at(0, 2**-53, 0.25, 0.5, 0.75, 1 - 2**-20, 1 - 2**-53)
    for draws in (ends, ends.float()):  # float32 makes 1 of the last
        times = draw_times(objective, draws)
        assert times[0] == 0
        assert (times.diff() >= 0).all()
        assert (times < 1).all()
        assert (times * 1000).long().max() <= 999


def test_default_is_uniform() -> None:
    draws = torch.rand(50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(draw_times(Diffusion(), draws), draws)
