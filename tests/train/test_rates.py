"""Learning rates over the steps, worked out by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.train.params import TrainParams
from stages.train.rates import learning_rate


def rates(at: list[int], **knobs: object) -> list[float]:
    params = TrainParams.model_validate({"learning_rate": 0.08, "steps": 10, **knobs})
    return [learning_rate(params, step) for step in at]


def test_constant_after_warmup() -> None:
    assert rates([0, 1, 3, 4, 9], warmup_steps=4) == [0.02, 0.04, 0.08, 0.08, 0.08]
    assert rates([0, 9]) == [0.08, 0.08]


def test_linear() -> None:
    assert rates([0, 5, 9, 10], schedule="linear") == pytest.approx([0.08, 0.04, 0.008, 0])
    assert rates([0, 2, 6, 10], schedule="linear", warmup_steps=2) == pytest.approx([0.04, 0.08, 0.04, 0])
    assert rates([0, 5, 10], schedule="linear", end_rate=0.25) == pytest.approx([0.08, 0.05, 0.02])


def test_cosine() -> None:
    # cos of 60 degrees is a half: three quarters are left after a third.
    assert rates([0, 3, 4, 9], schedule="cosine", steps=9) == pytest.approx([0.08, 0.06, 0.08 * 0.58682409, 0])
    assert rates([1, 5, 9], schedule="cosine", warmup_steps=1, steps=9) == pytest.approx([0.08, 0.04, 0])
    assert rates([0, 5, 10], schedule="cosine", end_rate=0.5) == pytest.approx([0.08, 0.06, 0.04])


def test_polynomial() -> None:
    assert rates([0, 5, 8, 10], schedule="polynomial") == pytest.approx([0.08, 0.02, 0.0032, 0])
    assert rates([0, 5, 10], schedule="polynomial", power=3.0, end_rate=0.5) == pytest.approx([0.08, 0.045, 0.04])
    both = [rates(list(range(11)), schedule=kind, power=1.0, warmup_steps=3) for kind in ("linear", "polynomial")]
    assert both[0] == both[1]


@given(
    st.sampled_from(["constant", "linear", "cosine", "polynomial"]),
    st.integers(1, 60),
    st.integers(0, 70),
    st.sampled_from([0.0, 0.3, 1.0]),
)
def test_it_rises_then_falls_and_never_stops(schedule: str, steps: int, warmup: int, end: float) -> None:
    found = rates(list(range(steps)), steps=steps, warmup_steps=warmup, schedule=schedule, end_rate=end)
    top = min(steps, warmup + 1)
    assert found[:top] == sorted(found[:top])
    assert found[top - 1 :] == sorted(found[top - 1 :], reverse=True)
    assert min(found) > 0
    assert max(found) <= 0.08 * (1 + 1e-12)
