"""How errors count: against values worked out by hand and identities between the predictions."""

import math
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler
from hypothesis import given
from hypothesis import strategies as st

from stages.core.errors import StageError
from stages.train.params import Diffusion
from stages.train.weighting import (
    check_fits,
    huber,
    huber_thresholds,
    masked_mean,
    offset_noise,
    perturbed_noise,
    picture_losses,
    signal_to_noise,
    snr_weights,
)

SNR = torch.tensor([0.0, 0.25, 1.0, 4.0, 20.0])
WEIGHTS = [
    ("min_snr", "epsilon", [1, 1, 1, 1, 0.25]),
    ("min_snr", "v_prediction", [0, 0.25 / 1.25, 0.5, 0.8, 5 / 21]),
    ("min_snr", "sample", [0, 0.25, 1, 4, 5]),
    ("debiased", "epsilon", [100, 2, 1, 0.5, 0.2236068]),
    ("debiased", "v_prediction", [0, 0.4, 0.5, 0.4, 4.472136 / 21]),
    ("debiased", "sample", [0, 0.5, 1, 2, 4.472136]),
    ("none", "epsilon", [1, 1, 1, 1, 1]),
]


def objective(**knobs: Any) -> Diffusion:
    return Diffusion.model_validate(knobs)


@pytest.mark.parametrize(("weighting", "prediction", "expected"), WEIGHTS)
def test_weights_by_hand(weighting: str, prediction: str, expected: list[float]) -> None:
    """Gamma is 5, as in the paper; the first SNR is the last timestep's of a zero-terminal schedule."""
    found = snr_weights(objective(weighting=weighting), prediction, SNR)
    assert found.tolist() == pytest.approx(expected, rel=1e-6)


def test_gamma() -> None:
    found = snr_weights(objective(weighting="min_snr", snr_gamma=1.0), "epsilon", SNR)
    assert found.tolist() == pytest.approx([1, 1, 1, 0.25, 0.05])


@pytest.mark.parametrize("weighting", ["min_snr", "debiased"])
@given(abar=st.floats(0.005, 0.9995), seed=st.integers(0, 9))
def test_what_is_predicted_changes_no_loss(weighting: str, abar: float, seed: int) -> None:
    """An error of z_0 is one of epsilon and one of v; weighted, all three come to the same."""
    generator = torch.Generator().manual_seed(seed)
    z, eps, answer = torch.randn(3, 1, 2, 3, 3, dtype=torch.float64, generator=generator)
    signal, noise = math.sqrt(abar), math.sqrt(1 - abar)
    noised = signal * z + noise * eps
    answered = {
        "epsilon": (answer, eps),
        "sample": ((noised - noise * answer) / signal, z),
        "v_prediction": (signal * answer - noise * (noised - noise * answer) / signal, signal * eps - noise * z),
    }
    snr = torch.tensor([abar / (1 - abar)])
    losses = [
        picture_losses(objective(weighting=weighting), prediction, *pair, snr, snr).item()
        for prediction, pair in answered.items()
    ]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-4)


def test_signal_to_noise() -> None:
    schedule = torch.tensor([0.99, 0.8, 0.5, 0.2, 0.0])
    found = signal_to_noise(schedule, torch.tensor([4, 0, 2, 3, 1]))
    assert found.tolist() == pytest.approx([0, 99, 1, 0.25, 4], rel=1e-4)


def test_huber_by_hand() -> None:
    # 2 x 0.1 x (sqrt(0.05^2 + 0.1^2) - 0.1); 2 x 0.1 x (sqrt(100.01) - 0.1)
    found = huber(torch.tensor([0.0, 0.05, -10.0], dtype=torch.float64), torch.tensor(0.1, dtype=torch.float64))
    assert found.tolist() == pytest.approx([0, 0.00236068, 1.9801], rel=1e-5)


def test_huber_is_square_then_straight() -> None:
    c = torch.tensor(0.1)
    small, large = torch.tensor([1e-5, -1e-4, 1e-3]), torch.tensor([1e3, -1e5])
    torch.testing.assert_close(huber(small, c), small.square(), rtol=1e-3, atol=0)
    torch.testing.assert_close(huber(large, c), 2 * c * large.abs(), rtol=1e-3, atol=0)


def test_huber_thresholds_by_hand() -> None:
    snr, time = torch.tensor([0.0, 1.0, 9.0, math.inf]), torch.tensor([1.0, 0.5, 0.25, 0.0])
    by_noise = huber_thresholds(objective(huber_schedule="snr"), snr, time)  # sigma: infinite, 1, 1/3, 0
    assert by_noise.tolist() == pytest.approx([0.1, 0.1 + 0.9 / 4, 0.1 + 0.9 / (16 / 9), 1])
    by_time = huber_thresholds(objective(huber_schedule="exponential", huber_c=0.01), snr, time)
    assert by_time.tolist() == pytest.approx([0.01, 0.1, 0.3162278, 1])
    assert huber_thresholds(objective(huber_schedule="constant"), snr, time).tolist() == pytest.approx([0.1] * 4)


def test_losses_of_each_picture() -> None:
    answer = torch.zeros(2, 4, 3, 3)
    answer[0], answer[1, :2] = 3.0, 1.0
    target = torch.ones(2, 4, 3, 3)  # errors of 2 everywhere; of 0 and of 1, half each
    snr, time = torch.tensor([20.0, 20.0]), torch.tensor([0.1, 0.1])

    def found(**knobs: Any) -> list[float]:
        return picture_losses(objective(**knobs), "epsilon", answer, target, snr, time).tolist()

    assert found() == pytest.approx([4, 0.5])
    assert found(weighting="min_snr") == pytest.approx([1, 0.125])
    half = {"huber_schedule": "constant", "huber_c": 0.5}
    assert found(loss="huber", **half) == pytest.approx([math.sqrt(4.25) - 0.5, (math.sqrt(1.25) - 0.5) / 2])
    assert found(loss="smooth_l1", **half) == pytest.approx([2 * math.sqrt(4.25) - 1, math.sqrt(1.25) - 0.5])


def test_each_picture_has_its_own_threshold() -> None:
    answer, target = torch.full((2, 1, 1, 1), 10.0), torch.zeros(2, 1, 1, 1)
    wanted = objective(loss="huber", huber_schedule="exponential", huber_c=0.01)
    found = picture_losses(wanted, "epsilon", answer, target, torch.ones(2), torch.tensor([0.0, 1.0]))
    assert found.tolist() == pytest.approx([2 * (math.sqrt(101) - 1), 0.02 * (10 - 0.01)], rel=1e-4)


def test_half_precision_answers_give_float32_losses() -> None:
    answer = torch.full((1, 1, 1, 1), 300.0, dtype=torch.bfloat16)
    losses = picture_losses(objective(), "epsilon", answer, torch.zeros(1, 1, 1, 1), torch.ones(1), torch.ones(1))
    assert losses.dtype == torch.float32
    assert losses.item() == 300.0**2


def test_mask_by_hand() -> None:
    errors = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]]]).repeat(2, 1, 1, 1)
    mask = torch.tensor([[[[1.0, 0.0], [0.0, 0.5]]], [[[0.0, 0.0], [0.0, 0.0]]]])
    # Picture 0: (1 + 4/2 + 5 + 8/2) over 2 channels of 1.5 places; picture 1: nothing counts.
    assert masked_mean(errors, mask).tolist() == pytest.approx([12 / 3, 0])


@given(st.floats(0.01, 1), st.integers(0, 9))
def test_a_mask_of_one_grey_changes_nothing(grey: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    answer, target = torch.randn(2, 3, 4, 5, 6, generator=generator)
    snr, time = torch.ones(3), torch.ones(3)
    mask = torch.full((3, 1, 5, 6), grey)
    masked = picture_losses(objective(), "epsilon", answer, target, snr, time, mask)
    torch.testing.assert_close(masked, picture_losses(objective(), "epsilon", answer, target, snr, time))


def test_what_the_mask_leaves_out_has_no_gradient() -> None:
    answer = torch.zeros(1, 2, 2, 2, requires_grad=True)
    mask = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
    one = torch.ones(1)
    losses = picture_losses(objective(), "epsilon", answer, torch.ones(1, 2, 2, 2), one, one, mask)
    (gradient,) = torch.autograd.grad(losses.sum(), answer)
    assert gradient[0, :, 0, 0].tolist() == pytest.approx([-1, -1])  # 2 (0 - 1) over 2 channels
    assert gradient.count_nonzero() == 2


def test_offset_noise_moves_whole_channels() -> None:
    noise = torch.randn(2, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    moved = offset_noise(noise, torch.tensor([[1.0, -2.0], [0.0, 4.0]]), 0.1) - noise
    expected = torch.tensor([[0.1, -0.2], [0.0, 0.4]])[:, :, None, None].expand(2, 2, 8, 8)
    torch.testing.assert_close(moved, expected, rtol=0, atol=1e-6)


def test_perturbed_noise() -> None:
    assert perturbed_noise(torch.tensor([1.0, 2.0]), torch.tensor([-3.0, 5.0]), 0.1).tolist() == pytest.approx(
        [0.7, 2.5]
    )


def test_zero_terminal_snr_by_hand() -> None:
    """Lin et al., arXiv 2305.08891, algorithm 1, is what diffusers' own switch does: nothing of ours is needed.

    Betas of 1/2 thrice: sqrt(abar) = 0.70711 0.5 0.35355; minus the last, times 0.70711 / 0.35355:
    0.70711 0.29289 0; squared 0.5 0.0857864 0; so alpha = 0.5 0.171573 0.
    """
    schedule = DDPMScheduler(
        3, trained_betas=[0.5, 0.5, 0.5], rescale_betas_zero_snr=True, prediction_type="v_prediction"
    )
    assert schedule.alphas_cumprod.tolist() == pytest.approx([0.5, 0.0857864, 0], rel=1e-5)
    assert schedule.betas.tolist() == pytest.approx([0.5, 0.828427, 1], rel=1e-5)
    z, noise = torch.randn(2, 1, 4, 2, 2)
    last = torch.tensor([2])
    assert torch.equal(schedule.add_noise(z, noise, last), noise)
    assert torch.equal(schedule.get_velocity(z, noise, last), -z)
    assert signal_to_noise(schedule.alphas_cumprod, last).item() == 0


def test_zero_terminal_snr_of_stable_diffusions_schedule() -> None:
    plain, rescaled = (
        DDPMScheduler(
            1000, 0.00085, 0.012, "scaled_linear", rescale_betas_zero_snr=zero, prediction_type="v_prediction"
        ).alphas_cumprod
        for zero in (False, True)
    )
    assert plain[-1].sqrt().item() == pytest.approx(0.068265, abs=1e-4)  # sec. 3.1 of the paper
    assert rescaled[0].item() == pytest.approx(plain[0].item(), abs=1e-6)
    assert rescaled[-1] == 0
    assert (rescaled.diff() < 0).all()


def test_what_does_not_fit_the_base_is_refused() -> None:
    with pytest.raises(StageError, match=r"zero_terminal_snr doesn't fit a base that predicts epsilon"):
        check_fits(objective(zero_terminal_snr=True), "epsilon")
    with pytest.raises(StageError, match="weighting is min_snr, which doesn't fit a base that predicts flow"):
        check_fits(objective(weighting="min_snr"), "flow")
    for prediction in ("epsilon", "v_prediction", "sample", "flow"):
        check_fits(objective(), prediction)
    check_fits(objective(zero_terminal_snr=True, weighting="debiased"), "v_prediction")
