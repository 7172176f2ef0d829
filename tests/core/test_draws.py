"""Draws belong to their purpose."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from stages.core.draws import seed_of, uniform
from stages.core.noise import normal, permutation

PARTS = st.lists(st.one_of(st.integers(), st.text()), min_size=1, max_size=4)


@given(PARTS, PARTS)
def test_purposes_have_seeds_of_their_own(a: list[int | str], b: list[int | str]) -> None:
    assert (seed_of(*a) == seed_of(*b)) == (a == b)


def test_number_and_word_are_two_purposes() -> None:
    assert seed_of(1) != seed_of("1")
    assert seed_of("a", "b") != seed_of("ab")


def test_seeds_stay_what_they_are() -> None:
    """The value of a draw is part of every result made so far: it may not drift."""
    assert seed_of(0, "noise", 3, "abc") == 6346521490754051495
    assert uniform("a") == 0.05989556838486587


def test_uniform_is_uniform() -> None:
    values = sorted(uniform("x", number) for number in range(4000))
    assert values[0] >= 0
    assert values[-1] < 1
    assert max(abs(value - (rank + 0.5) / 4000) for rank, value in enumerate(values)) < 0.03  # Kolmogorov-Smirnov


def test_normal_does_not_touch_the_global_generator() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = normal((2, 3), "noise", 1)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(first, normal((2, 3), "noise", 1))
    assert not torch.equal(first, normal((2, 3), "noise", 2))


@given(st.integers(1, 200))
def test_permutation_holds_every_number_once(length: int) -> None:
    assert sorted(permutation(length, "order").tolist()) == list(range(length))
