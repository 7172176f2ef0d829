"""How often each timestep is drawn.

Every density is the image of a uniform draw (its inverse distribution function), so that a draw is derived from
seed, purpose and key like any other. t is the share of noise's way, from 0, the picture, to 1, noise alone.
"""

import math

import torch

from stages.train.params import Diffusion


def draw_times(objective: Diffusion, uniform_B: torch.Tensor) -> torch.Tensor:
    """Times t in [0, 1), (B,), from uniform draws in [0, 1): of the chosen density, then shifted.

    Draws in float64 keep their digits near 1. Of T discrete timesteps t means number floor(t T).
    """
    match objective.timesteps:
        case "uniform":
            times = uniform_B
        case "logit_normal":
            times = logit_normal(uniform_B, objective.logit_mean, objective.logit_std)
        case "mode":
            times = mode(uniform_B, objective.mode_scale)
    below_one = torch.nextafter(torch.ones_like(times), torch.zeros_like(times))
    return torch.minimum(shifted(times, objective.shift), below_one)


def logit_normal(uniform_B: torch.Tensor, mean: float, std: float) -> torch.Tensor:
    """Times whose logit log(t / (1 - t)) is normal: most at the middle, none at the ends.

    Esser et al., arXiv 2403.03206, eq. 19.
    """
    return torch.sigmoid(mean + std * torch.special.ndtri(uniform_B))


def mode(uniform_B: torch.Tensor, scale: float) -> torch.Tensor:
    """Times around the middle, but none left out: 1 - u - scale (cos^2(pi u / 2) - 1 + u) at 1 - u.

    Esser et al., arXiv 2403.03206, eq. 20; turned round, which changes no density, so that it rises with the draw.
    """
    return uniform_B - scale * ((math.pi / 2 * uniform_B).sin().square() - uniform_B)


def shifted(time_B: torch.Tensor, shift: float) -> torch.Tensor:
    """Times moved towards noise, shift t / (1 + (shift - 1) t): larger pictures need more noise to be as unclear.

    Esser et al., arXiv 2403.03206, eq. 23, with shift = sqrt(m / n) for m pixels in place of n.
    """
    return shift * time_B / (1 + (shift - 1) * time_B)
