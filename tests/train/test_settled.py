"""How a training's sums are worked out, and that nothing else in the process is."""

import pytest
import torch

from stages.train.run import settled


def test_numbers_too_small_are_zero_in_a_training_and_only_there() -> None:
    small = torch.full((64,), 1e-40)
    with settled():
        assert not (small * 0.5).any()
    assert (small * 0.5).all()
    with pytest.raises(RuntimeError), settled():
        raise RuntimeError
    assert (small * 0.5).all()
