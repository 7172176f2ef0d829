"""The loop's parts: order, captions, rates, averages, noise."""

import errno
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from diffusers import DDPMScheduler
from hypothesis import given
from hypothesis import strategies as st

from stages.core.errors import StageError
from stages.core.families.family import Text
from stages.core.families.sd import StableDiffusion
from stages.core.models import Scale
from stages.core.objective import Denoiser
from stages.core.process import Diffusion
from stages.train.captions import choose_caption
from stages.train.loop import Taken, backward, refuse_broken
from stages.train.order import row_of
from stages.train.params import TrainParams
from stages.train.state import State, fingerprint, load_state, save_state


@given(st.integers(1, 40), st.integers(0, 3))
def test_each_epoch_sees_every_row_once(rows: int, seed: int) -> None:
    seen = [row_of(sample, rows, seed) for sample in range(3 * rows)]
    for epoch in range(3):
        assert sorted(seen[epoch * rows : (epoch + 1) * rows]) == list(range(rows))


def test_epochs_have_orders_of_their_own_and_no_memory() -> None:
    first, second = ([row_of(epoch * 50 + n, 50, 0) for n in range(50)] for epoch in (0, 1))
    assert first != second
    assert [row_of(n, 50, 0) for n in range(50)] == first
    assert row_of(7, 50, 1) != row_of(7, 50, 0) or row_of(8, 50, 1) != row_of(8, 50, 0)


def test_caption_dropout_is_its_share() -> None:
    params = TrainParams(caption_dropout=0.3)
    drawn = np.array([choose_caption(params, [4, 7], sample, "key") for sample in range(4000)])
    assert abs((drawn == 0).mean() - 0.3) < 0.03
    assert abs((drawn == 4).mean() - 0.35) < 0.03
    assert {choose_caption(TrainParams(caption_dropout=0.0), [4], s, "k") for s in range(99)} == {4}
    assert choose_caption(TrainParams(caption_dropout=0.0), [], 1, "k") == 0


class Oracle(torch.nn.Module):
    """A denoiser that answers what it is told to."""

    def __init__(self, answer: torch.Tensor) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, *_: Any, **__: Any) -> Any:
        return type("Output", (), {"sample": self.answer})


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_the_true_answer_has_no_loss(kind: str) -> None:
    """v = sqrt(abar) eps - sqrt(1 - abar) z_0, worked out here from the betas."""
    schedule = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type=kind)
    z, noise, timesteps = torch.randn(2, 4, 3, 3), torch.randn(2, 4, 3, 3), torch.tensor([0, 700])
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    abar = torch.cumprod(1 - betas, 0)[timesteps].float().view(2, 1, 1, 1)
    truth = noise if kind == "epsilon" else abar.sqrt() * noise - (1 - abar).sqrt() * z
    denoiser = Denoiser(StableDiffusion(), Oracle(truth), Diffusion(schedule), Scale(1.0))
    answer, target = denoiser.ask(z, Text(torch.zeros(2, 1, 1)), torch.zeros(2, 6), noise, timesteps)
    torch.testing.assert_close(answer, target, atol=1e-6, rtol=1e-5)


def test_state_comes_back_as_it_was(tmp_path: Path) -> None:
    curve = [(1, "train/loss", 0.5)]
    state = State(3, {"w": torch.ones(2)}, {"w": torch.zeros(2)}, [{"state": {}}], curve, [(0.5, 0.25)])
    save_state(tmp_path, state)
    back = load_state(tmp_path)
    assert back is not None
    assert (back.step, back.curve, back.losses) == (3, [(1, "train/loss", 0.5)], [(0.5, 0.25)])
    assert torch.equal(back.weights["w"], torch.ones(2))
    assert load_state(tmp_path / "other") is None


def test_damaged_state_is_said(tmp_path: Path) -> None:
    (tmp_path / "state.pt").write_bytes(b"not a state")
    with pytest.raises(StageError, match=r"state\.pt: is damaged; delete it"):
        load_state(tmp_path)


def test_what_a_training_is_made_of() -> None:
    same = fingerprint(TrainParams(), "latents", "base")
    assert same == fingerprint(TrainParams(), "latents", "base")
    assert same != fingerprint(TrainParams(learning_rate=1e-4), "latents", "base")
    assert same != fingerprint(TrainParams(), "other", "base")


def test_a_full_disk_leaves_the_state_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And power that fails in the middle of writing leaves a part of a file that nobody opens."""
    save_state(tmp_path, State(3))

    def full(*_: Any) -> None:
        (tmp_path / "state.partial").write_bytes(b"half of a st")
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "state.partial"))

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(OSError, match="No space left"):
            save_state(tmp_path, State(4))
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]
    (tmp_path / "state.partial").write_bytes(b"half of a st")
    back = load_state(tmp_path)
    assert back is not None
    assert back.step == 3
    save_state(tmp_path, State(5))
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]


def test_a_loss_that_is_no_number_names_the_step_and_the_pictures() -> None:
    batches: list[tuple[list[str], dict[str, torch.Tensor]]] = [(["a/0", "b/0"], {}), (["c/0", "d/0"], {})]
    losses = [0.5, math.nan, 0.25, math.inf]
    refuse_broken(7, batches, torch.tensor([0.5, 0.1, 0.25, 0.2]), Taken([0.5, 0.1, 0.25, 0.2], [], 1.0, False))
    with pytest.raises(StageError, match=r"loss of step 7 is no number \(pictures b/0, d/0\); lower train"):
        refuse_broken(7, batches, torch.tensor(losses), Taken(losses, [], 1.0, False))
    with pytest.raises(StageError, match="pictures of another process"):
        refuse_broken(7, batches, torch.tensor([0.5, 0.1, 0.25, 0.2]), Taken([*losses, 0.1], [], 1.0, False))


class Tight(torch.nn.Module):
    """A model that fits no more than two rows."""

    splits = True

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(2.0))
        self.seen: list[int] = []

    def forward(self, work: Callable[[], torch.Tensor]) -> torch.Tensor:
        return work()

    def losses(self, prepared: dict[str, torch.Tensor]) -> torch.Tensor:
        if len(prepared["x"]) > 2:
            raise torch.OutOfMemoryError("no more memory")
        self.seen.append(len(prepared["x"]))
        return self.weight * prepared["x"]


def test_where_memory_runs_out_smaller_parts_give_the_same_gradient(capsys: pytest.CaptureFixture[str]) -> None:
    """Of seven rows in two batches: the gradient of their mean loss, as if all had fitted."""
    x = torch.arange(1.0, 8.0)
    batches = [(list("abcd"), {"x": x[:4]}), (list("efg"), {"x": x[4:]})]
    state, step = State(micro=7), Tight()
    losses = backward(TrainParams(), cast("Any", step), step, batches, state, Accelerator())
    assert step.seen == [2, 2, 2, 1]
    assert state.micro == 2
    assert torch.equal(losses, 2 * x)
    assert step.weight.grad is not None
    assert step.weight.grad.item() == pytest.approx(4.0)  # the mean of 1 to 7
    assert "2 pictures at once from here on" in capsys.readouterr().out
    step.splits = False
    with pytest.raises(StageError, match=r"memory runs out at 4 pictures at once; lower train\.batch_size"):
        backward(TrainParams(), cast("Any", step), step, batches, State(micro=4), Accelerator())
