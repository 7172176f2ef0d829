"""How much an error of the denoiser counts: by its size, its place and its timestep's noise.

Shapes: B pictures, C latent channels, H x W latent pixels, T timesteps. SNR is the signal-to-noise ratio
abar / (1 - abar) of a timestep, where z_t = sqrt(abar) z_0 + sqrt(1 - abar) eps; 0 where nothing of z_0 is left.
"""

import torch

from stages.core.errors import StageError
from stages.train.params import Diffusion

MOST = 100.0  # weight of debiased for epsilon; Stable Diffusion's own last timestep has 14.6


def check_fits(objective: Diffusion, prediction: str) -> None:
    """Raises StageError where what the base predicts (its schedule's prediction_type) rules the objective out."""
    if objective.zero_terminal_snr and prediction not in ("v_prediction", "sample"):
        raise StageError(
            "params.yaml",
            f"train.objective.zero_terminal_snr doesn't fit a base that predicts {prediction}: from noise alone "
            "it would learn nothing",
            "turn it off, or start from a base of prediction type v_prediction",
        )
    if objective.weighting != "none" and prediction not in ("epsilon", "v_prediction", "sample"):
        raise StageError(
            "params.yaml",
            f"train.objective.weighting is {objective.weighting}, which doesn't fit a base that predicts {prediction}",
            "give none, and choose train.objective.timesteps instead",
        )


def picture_losses(
    objective: Diffusion,
    prediction: str,
    answer_BCHW: torch.Tensor,
    target_BCHW: torch.Tensor,
    snr_B: torch.Tensor,
    time_B: torch.Tensor,
    mask_B1HW: torch.Tensor | None = None,
) -> torch.Tensor:
    """The loss of each picture, (B,) float32: mean error over places, times the weight of its timestep.

    time_B is the timestep's share of all, 0 to 1. The mask says how much each place counts, 0 to 1; a picture's mean is
    over what counts, so that a small subject is learned as fast as a large one.
    """
    difference = answer_BCHW.float() - target_BCHW.float()
    if objective.loss == "mse":
        errors = difference.square()
    else:
        c_B111 = huber_thresholds(objective, snr_B, time_B)[:, None, None, None]
        errors = huber(difference, c_B111)
        if objective.loss == "smooth_l1":
            errors = errors / c_B111
    losses = errors.mean(dim=(1, 2, 3)) if mask_B1HW is None else masked_mean(errors, mask_B1HW)
    if objective.weighting == "none":
        return losses
    return losses * snr_weights(objective, prediction, snr_B)


def huber(difference: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """Pseudo-Huber loss 2 c (sqrt(d^2 + c^2) - c): d^2 for small d, 2 c |d| for large.

    Twice that of Khrapov et al., arXiv 2403.16728, as sd-scripts and diffusers have it; written without its
    difference of near numbers, which has no digits left in float32 where d is a thousandth of c.
    """
    square = difference.square()
    return 2 * c * square / ((square + c.square()).sqrt() + c)


def huber_thresholds(objective: Diffusion, snr_B: torch.Tensor, time_B: torch.Tensor) -> torch.Tensor:
    """The error c (B,) from which on one is an outlier.

    Khrapov et al., arXiv 2403.16728: constant c; exponential, c^(t / T); or by noise,
    c + (1 - c) / (1 + sigma)^2 with sigma = SNR^-1/2.
    """
    c = objective.huber_c
    match objective.huber_schedule:
        case "constant":
            return torch.full_like(snr_B, c)
        case "exponential":
            return c ** time_B.to(snr_B)
        case "snr":
            return c + (1 - c) / (1 + snr_B.rsqrt()).square()


def masked_mean(errors_BCHW: torch.Tensor, mask_B1HW: torch.Tensor) -> torch.Tensor:
    """Mean error (B,) of each picture, each place as often as its mask says; 0 where none counts."""
    total = (errors_BCHW * mask_B1HW).sum(dim=(1, 2, 3))
    counted = mask_B1HW.float().sum(dim=(1, 2, 3)) * errors_BCHW.shape[1]
    return total / counted.clamp(min=torch.finfo(torch.float32).tiny)


def signal_to_noise(alphas_cumprod_T: torch.Tensor, timesteps_B: torch.Tensor) -> torch.Tensor:
    """SNR (B,) at these timesteps of a schedule (Kingma et al., arXiv 2107.00630, eq. 2)."""
    abar_B = alphas_cumprod_T[timesteps_B.to(alphas_cumprod_T.device)]
    return abar_B / (1 - abar_B)


def snr_weights(objective: Diffusion, prediction: str, snr_B: torch.Tensor) -> torch.Tensor:
    """What the squared errors at these SNR are multiplied by, (B,); finite at 0.

    A weight w of z_0's squared error is one of w / SNR of epsilon's and of w / (SNR + 1) of v's, the same error
    (Salimans and Ho, arXiv 2202.00512, appendix D).
    min_snr: w = min(SNR, gamma) (Hang et al., arXiv 2303.09556).
    debiased: w = sqrt(SNR), 1 / sqrt(SNR) of epsilon's (Yu et al., arXiv 2310.08442), at most 100.
    """
    gamma = objective.snr_gamma
    root_B = snr_B.sqrt()
    match objective.weighting, prediction:
        case "none", _:
            return torch.ones_like(snr_B)
        case "min_snr", "epsilon":
            return gamma / snr_B.clamp(min=gamma)
        case "min_snr", "v_prediction":
            return snr_B.clamp(max=gamma) / (snr_B + 1)
        case "min_snr", "sample":
            return snr_B.clamp(max=gamma)
        case "debiased", "epsilon":
            return root_B.clamp(min=1 / MOST).reciprocal()
        case "debiased", "v_prediction":
            return root_B / (snr_B + 1)
        case "debiased", "sample":
            return root_B
    raise AssertionError(f"check_fits lets no {objective.weighting} of {prediction} pass")


def offset_noise(noise_BCHW: torch.Tensor, draws_BC: torch.Tensor, strength: float) -> torch.Tensor:
    """The noise, with a mean of its own in each channel: strength times its standard normal draw.

    Guttenberg 2023 (crosslabs.org/blog/diffusion-with-offset-noise): noise whose mean is near 0 teaches that a
    picture's brightness needs no change. Input and target both have it.
    """
    return noise_BCHW + strength * draws_BC[:, :, None, None]


def perturbed_noise(noise_BCHW: torch.Tensor, draws_BCHW: torch.Tensor, strength: float) -> torch.Tensor:
    """The noise of the input where the target keeps its own: strength times standard normal draws more.

    Ning et al., arXiv 2301.11706: training sees inputs as far off as sampling makes them.
    """
    return noise_BCHW + strength * draws_BCHW
