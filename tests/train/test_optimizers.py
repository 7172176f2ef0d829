"""The optimisers: their steps worked out by hand, who gets which weight, and going on after a stop."""

import io
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch.optim import AdamW, Optimizer

from stages.core.errors import StageError
from stages.train.muon import Muon
from stages.train.optimizers import make_optimizers
from stages.train.params import TrainParams
from stages.train.rates import learning_rate

NAMES = ["adamw", "adafactor", "lion", "muon", "prodigy"]
EIGHT_BITS = pytest.param("adamw_8bit", marks=pytest.mark.skipif(not find_spec("bitsandbytes"), reason="an extra"))


def knobs(name: str, **others: Any) -> TrainParams:
    return TrainParams.model_validate({"optimizer": name, "learning_rate": 1.0 if name == "prodigy" else 0.1, **others})


def weights_after(name: str, start: list[float], gradients: list[list[float]], **others: Any) -> list[float]:
    """One weight tensor after a step for each gradient."""
    weight = torch.nn.Parameter(torch.tensor(start))
    (optimizer,) = make_optimizers(knobs(name, **others), [([weight], 1.0)])
    for gradient in gradients:
        weight.grad = torch.tensor(gradient)
        optimizer.step()
    return weight.detach().flatten().tolist()


def test_adamw_by_hand() -> None:
    # 1: m/(1-b1) = g, v/(1-b2) = g^2, so the step is 0.1 after decay by 0.1 x 0.01.
    assert weights_after("adamw", [1.0], [[0.5]]) == pytest.approx([0.999 - 0.1])
    # 2: m = 0.9 x 0.05 - 0.1 x 0.5 = -0.005, /0.19 = -0.0263158; v/(1-b2^2) = 0.25; step -0.0526316 x 0.1.
    assert weights_after("adamw", [1.0], [[0.5], [-0.5]]) == pytest.approx([0.899 * 0.999 + 0.00526316])


def test_lion_by_hand() -> None:
    # m: 0, 0.005, 0.00485. Interpolated 0.9 m + 0.1 g: 0.05, 0.0035 (against the gradient's own sign), -0.005635.
    steps = [[0.5], [-0.01], [-0.1]]
    assert weights_after("lion", [1.0], steps[:1]) == pytest.approx([0.899])
    assert weights_after("lion", [1.0], steps[:2]) == pytest.approx([0.798101])
    assert weights_after("lion", [1.0], steps) == pytest.approx([0.897302899])
    # With beta2 = 0.5 the momentum follows sooner: m = 0.25, 0.12; 0.9 x 0.12 - 0.1 x 0.1 is still above 0.
    assert weights_after("lion", [1.0], steps, beta2=0.5) == pytest.approx([0.798101 * 0.999 - 0.1])


def test_prodigy_begins_small_and_finds_its_rate() -> None:
    # 1: its rate d is still d0 = 1e-6; bias correction makes the step d x sign(g).
    assert weights_after("prodigy", [0.0, 0.0], [[2.0, -3.0]]) == pytest.approx([-1e-6, 1e-6], rel=1e-4)
    weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    (optimizer,) = make_optimizers(knobs("prodigy"), [([weight], 1.0)])
    for _ in range(300):
        weight.grad = weight.detach().clone()  # of a bowl around 0
        optimizer.step()
    assert weight.detach().abs().max() < 0.05
    assert optimizer.param_groups[0]["d"] > 1e-3


class Small(torch.nn.Sequential):
    """Of every kind: an embedding, a first layer, matrices, biases, a norm."""

    def __init__(self) -> None:
        super().__init__(
            torch.nn.Embedding(32, 32),
            torch.nn.Conv2d(4, 32, 3),
            torch.nn.Conv2d(32, 32, 3),
            torch.nn.Linear(64, 64),
            torch.nn.LayerNorm(64),
        )
        generator = torch.Generator().manual_seed(0)
        for weight in self.parameters():
            weight.data = torch.randn(weight.shape, generator=generator)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch knows it, its stubs don't


def train(params: TrainParams, network: Small, optimizers: list[Optimizer], steps: range) -> None:
    """As the loop does it, with gradients that depend on the step and the weights."""
    for step in steps:
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = learning_rate(params, step) * group["factor"]
        generator = torch.Generator().manual_seed(step)
        for weight in network.parameters():
            weight.grad = weight.detach() + torch.randn(weight.shape, generator=generator)
        for optimizer in optimizers:
            optimizer.step()


@pytest.mark.parametrize("name", [*NAMES, EIGHT_BITS])
def test_a_stop_in_between_changes_no_bit(name: str) -> None:
    params = knobs(name, warmup_steps=2, steps=9, schedule="cosine")
    whole, halved, later = Small(), Small(), Small()
    train(params, whole, make_optimizers(params, whole), range(9))
    begun = make_optimizers(params, halved)
    train(params, halved, begun, range(4))
    file = io.BytesIO()
    torch.save([halved.state_dict(), *(optimizer.state_dict() for optimizer in begun)], file)
    file.seek(0)
    weights, *states = torch.load(file, weights_only=True)
    later.load_state_dict(weights)
    fresh = make_optimizers(params, later)
    for optimizer, state in zip(fresh, states, strict=True):
        optimizer.load_state_dict(state)
    train(params, later, fresh, range(4, 9))
    for ended, other, started in zip(whole.parameters(), later.parameters(), Small().parameters(), strict=True):
        assert torch.equal(ended, other)
        assert not torch.equal(ended, started)


@pytest.mark.parametrize("name", [EIGHT_BITS])
def test_eight_bits_go_the_same_way(name: str) -> None:
    ended = []
    for chosen in (name, "adamw"):
        params, network = knobs(chosen, learning_rate=1e-2), Small()
        optimizers = make_optimizers(params, network)
        train(params, network, optimizers, range(20))
        ended.append(torch.cat([weight.detach().flatten() for weight in network.parameters()]))
        kept = {str(v.dtype) for state in optimizers[0].state.values() for v in state.values() if hasattr(v, "dtype")}
        assert ("torch.uint8" in kept) == (chosen == name)
    began = torch.cat([weight.detach().flatten() for weight in Small().parameters()])
    assert (ended[0] - ended[1]).norm() < 0.1 * (ended[1] - began).norm()


@pytest.mark.parametrize("name", [name for name in NAMES if name != "prodigy"])
def test_each_part_has_its_rate(name: str) -> None:
    """After one step half the rate has moved the weights half as far."""
    moved = []
    params = knobs(name, weight_decay=0.0, learning_rate=1e-2)
    for factor in (1.0, 0.5):
        fast, slow = Small(), Small()
        optimizers = make_optimizers(params, [(fast, 1.0), (slow, factor)])
        assert {group["factor"] for optimizer in optimizers for group in optimizer.param_groups} == {1.0, factor}
        train(params, slow, optimizers, range(1))
        moved.append([w.detach() - before for w, before in zip(slow.parameters(), Small().parameters(), strict=True)])
    for whole, half in zip(*moved, strict=True):
        torch.testing.assert_close(half, whole / 2, rtol=1e-3, atol=1e-6)


def test_prodigy_has_one_rate() -> None:
    with pytest.raises(StageError, match="one learning rate for all weights"):
        make_optimizers(knobs("prodigy"), [(Small(), 1.0), (Small(), 0.5)])
    assert len(make_optimizers(knobs("prodigy"), [(Small(), 1.0), (Small(), 1.0)])) == 1


def test_what_is_frozen_stays_out() -> None:
    network = Small()
    network[1].requires_grad_(False)
    for name in NAMES:
        held = [w for part in make_optimizers(knobs(name), network) for g in part.param_groups for w in g["params"]]
        assert {id(weight) for weight in held} == {id(w) for w in network.parameters() if w.requires_grad}
        assert len(held) == 7


def test_matrices_and_the_rest() -> None:
    network = torch.nn.Sequential(
        torch.nn.Embedding(32, 32), torch.nn.Conv2d(4, 32, 3), torch.nn.Conv2d(32, 32, 3), torch.nn.Linear(32, 16)
    )
    adamw, muon = make_optimizers(knobs("muon"), network)
    assert isinstance(adamw, AdamW)
    assert isinstance(muon, Muon)
    shapes = [tuple(weight.shape) for weight in muon.param_groups[0]["params"]]
    assert shapes == [(32, 32, 3, 3), (16, 32)]
    held = [weight for part in (adamw, muon) for group in part.param_groups for weight in group["params"]]
    assert {id(weight) for weight in held} == {id(weight) for weight in network.parameters()}
    assert [type(part) for part in make_optimizers(TrainParams(), network)] == [AdamW]


@pytest.mark.parametrize(
    ("name", "wanted"), [("adamw_8bit", "bitsandbytes"), ("lion", "lion-pytorch"), ("prodigy", "prodigyopt")]
)
def test_what_is_not_installed_is_said(name: str, wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.train.params.find_spec", lambda _: None)
    said = f"train.optimizer: is {name}: {wanted} isn't installed; pip install {wanted}"
    with pytest.raises(StageError, match=said):
        make_optimizers(knobs(name), Small())


def test_rates_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"give 1\.0"):
        TrainParams(optimizer="prodigy", learning_rate=1e-4)
    with pytest.raises(ValueError, match=r"give 1\.0"):
        TrainParams(optimizer="prodigy")
    with pytest.raises(ValueError, match=r"above 0\.1"):
        TrainParams(optimizer="adamw", learning_rate=1.0)


def test_muon_and_fp16() -> None:
    with pytest.raises(ValueError, match="bf16"):
        TrainParams(optimizer="muon", precision="fp16")
