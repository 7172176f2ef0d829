"""How a model's family takes pictures apart into noise: diffusion, or a straight flow.

Shapes: B pictures, C latent channels, H x W latent pixels, T timesteps. Levels are from 0 (the picture) to 1 (noise).
"""

import json
from pathlib import Path
from typing import Any, Protocol

import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler

from stages.core.models import load_part


class Process(Protocol):
    """A noise process. kind: what the denoiser answers: epsilon, v_prediction, sample or flow."""

    kind: str

    def timesteps(self, levels_B: torch.Tensor) -> torch.Tensor:
        """What the denoiser is told of levels in [0, 1), (B,)."""

    def noised(self, latents: torch.Tensor, noise: torch.Tensor, timesteps_B: torch.Tensor) -> torch.Tensor:
        """Latents (B, C, H, W) as they are at these timesteps."""

    def target(self, latents: torch.Tensor, noise: torch.Tensor, timesteps_B: torch.Tensor) -> torch.Tensor:
        """What the denoiser should answer, (B, C, H, W)."""

    def snr(self, timesteps_B: torch.Tensor) -> torch.Tensor:
        """Signal-to-noise ratio of power, (B,) float32; 0 where there is noise alone."""


class Diffusion:
    """z_t = sqrt(abar_t) z_0 + sqrt(1 - abar_t) eps (Ho et al., arXiv 2006.11239, eq. 4).

    The answer is eps, z_0, or v = sqrt(abar_t) eps - sqrt(1 - abar_t) z_0 (Salimans and Ho, arXiv 2202.00512,
    appendix D), as the schedule's prediction_type says.
    """

    def __init__(self, schedule: DDPMScheduler) -> None:
        self.schedule = schedule
        self.kind: str = schedule.config.prediction_type
        self.steps: int = schedule.config.num_train_timesteps

    def timesteps(self, levels_B: torch.Tensor) -> torch.Tensor:
        return (levels_B.double() * self.steps).long().clamp(max=self.steps - 1)

    def noised(self, latents: torch.Tensor, noise: torch.Tensor, timesteps_B: torch.Tensor) -> torch.Tensor:
        noised: torch.Tensor = self.schedule.add_noise(latents, noise, timesteps_B)
        return noised

    def target(self, latents: torch.Tensor, noise: torch.Tensor, timesteps_B: torch.Tensor) -> torch.Tensor:
        if self.kind == "v_prediction":
            velocity: torch.Tensor = self.schedule.get_velocity(latents, noise, timesteps_B)
            return velocity
        return latents if self.kind == "sample" else noise

    def snr(self, timesteps_B: torch.Tensor) -> torch.Tensor:
        abar_B: torch.Tensor = self.schedule.alphas_cumprod.to(timesteps_B.device)[timesteps_B]
        return abar_B / (1 - abar_B)


class Flow:
    """z_s = (1 - s) z_0 + s eps; the answer is eps - z_0.

    Liu et al., arXiv 2209.03003; Esser et al., arXiv 2403.03206, section 2. A draw u has the noise level
    s = shift u / (1 + (shift - 1) u) (Esser et al., eq. 23), with the model's own shift; the transformer is told T s.
    """

    kind = "flow"

    def __init__(self, schedule: FlowMatchEulerDiscreteScheduler) -> None:
        self.steps: int = schedule.config.num_train_timesteps
        self.shift: float = schedule.config.shift

    def timesteps(self, levels_B: torch.Tensor) -> torch.Tensor:
        shifted = self.shift * levels_B / (1 + (self.shift - 1) * levels_B)
        return (shifted * self.steps).float().clamp(min=1.0)

    def noised(self, latents: torch.Tensor, noise: torch.Tensor, timesteps_B: torch.Tensor) -> torch.Tensor:
        return torch.lerp(latents, noise, self._sigma(timesteps_B).to(latents.dtype))

    def target(self, latents: torch.Tensor, noise: torch.Tensor, timesteps_B: torch.Tensor) -> torch.Tensor:
        return noise - latents

    def snr(self, timesteps_B: torch.Tensor) -> torch.Tensor:
        sigma = self._sigma(timesteps_B).flatten()
        return ((1 - sigma) / sigma) ** 2

    def _sigma(self, timesteps_B: torch.Tensor) -> torch.Tensor:
        return timesteps_B.view(-1, 1, 1, 1) / self.steps


def load_process(model: Path, **changes: Any) -> Process:
    """The process that the model was trained with, whatever sampler its folder names; changes: to its schedule."""
    config = json.loads((model / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8"))
    if config["_class_name"].startswith("FlowMatch"):
        return Flow(load_part(FlowMatchEulerDiscreteScheduler, model, "scheduler", weights=False))
    return Diffusion(load_part(DDPMScheduler, model, "scheduler", weights=False, **changes))
