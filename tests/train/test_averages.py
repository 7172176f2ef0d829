"""The averaged weights: by hand, in one pass, and going on after a stop."""

import io

import pytest
import torch

from stages.train.averages import average_decay, average_weights
from stages.train.params import TrainParams


def test_average_by_hand() -> None:
    weights = {"w": torch.nn.Parameter(torch.tensor([10.0]))}
    average = {"w": torch.tensor([0.0])}
    params = TrainParams(ema_decay=0.9)
    average_weights(params, average, weights, 0)  # decay min(0.9, 1/10): 0.1 x 0 + 0.9 x 10
    assert average["w"].item() == pytest.approx(9.0)
    average_weights(params, average, weights, 10_000)  # decay 0.9: 0.9 x 9 + 0.1 x 10
    assert average["w"].item() == pytest.approx(9.1)


def test_warmup() -> None:
    assert [average_decay(TrainParams(ema_decay=0.9), step) for step in (0, 2, 79, 80, 81)] == pytest.approx(
        [1 / 10, 3 / 12, 80 / 89, 0.9, 0.9]
    )
    assert [average_decay(TrainParams(ema_decay=0.9, ema_warmup=1), step) for step in (0, 9)] == [0.9, 0.9]
    assert average_decay(TrainParams(ema_decay=0.0), 500) == 0.0


def test_with_warmup_it_is_a_weighted_mean_of_the_weights_so_far() -> None:
    """With w = 2 the decay is (1 + n) / (2 + n): each step counts alike, the start as one of them."""
    params = TrainParams(ema_decay=0.9999, ema_warmup=2)
    values = [4.0, -1.0, 7.0, 2.5]
    average = {"w": torch.tensor([values[0]])}
    for step, value in enumerate(values[1:]):
        average_weights(params, average, {"w": torch.nn.Parameter(torch.tensor([value]))}, step)
    assert average["w"].item() == pytest.approx(sum(values) / 4)


def drift(average: dict[str, torch.Tensor], steps: range) -> None:
    """Averages of weights that depend on the step."""
    params = TrainParams(ema_decay=0.95)
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        weights = {
            name: torch.nn.Parameter(torch.randn(value.shape, generator=generator)) for name, value in average.items()
        }
        average_weights(params, average, weights, step)


def start() -> dict[str, torch.Tensor]:
    last = torch.zeros(8, 6, 3, 3).contiguous(memory_format=torch.channels_last)
    return {"table": torch.zeros(5, 7), "bias": torch.zeros(3), "convolution": last}


def test_a_stop_in_between_changes_no_bit() -> None:
    whole, halved = start(), start()
    drift(whole, range(60))
    drift(halved, range(37))
    file = io.BytesIO()
    torch.save(halved, file)
    file.seek(0)
    later = torch.load(file, weights_only=True)
    drift(later, range(37, 60))
    for name, value in whole.items():
        assert torch.equal(value, later[name])


def test_in_place_and_of_the_trained_names_only() -> None:
    average = {"w": torch.zeros(2), "frozen": torch.ones(2)}
    held = average["w"]
    average_weights(TrainParams(ema_decay=0.5), average, {"w": torch.nn.Parameter(torch.ones(2))}, 100)
    assert average["w"] is held
    assert not held.requires_grad
    assert held.tolist() == [0.5, 0.5]
    assert average["frozen"].tolist() == [1.0, 1.0]
