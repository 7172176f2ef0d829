"""From noise to latents, or from halfway: the reverse process, for stages that need latents and no pictures.

Shapes: B pictures, C latent channels, H x W latent pixels. Latents are scaled.
"""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

from stages.core.families.family import Text
from stages.core.models import load_part, part_of
from stages.core.objective import Denoiser


class Solver:
    """DDIM without noise of its own (Song et al., arXiv 2010.02502, eq. 12), or Euler's steps for a flow.

    Nothing is drawn on the way: what comes out depends on the start alone.
    """

    def __init__(self, model: Path, steps: int) -> None:
        config = json.loads((part_of(model, "scheduler") / "scheduler_config.json").read_text(encoding="utf-8"))
        if config["_class_name"].startswith("FlowMatch"):
            self.scheduler: Any = load_part(FlowMatchEulerDiscreteScheduler, model, "scheduler", weights=False)
        else:  # latents reach beyond 1, where DDIMScheduler would clip them if the file doesn't say otherwise
            self.scheduler = load_part(DDIMScheduler, model, "scheduler", weights=False, clip_sample=False)
        self.scheduler.set_timesteps(steps)
        self.timesteps: torch.Tensor = self.scheduler.timesteps

    def nearest(self, level: float) -> int:
        """The number of the step whose timestep is nearest to `level` of all, 0 (the picture) to 1 (noise)."""
        wanted = level * self.scheduler.config.num_train_timesteps
        return int((self.timesteps.double() - wanted).abs().argmin())

    @torch.no_grad()
    def solve(
        self,
        denoiser: Denoiser,
        noised_BCHW: torch.Tensor,
        text: Text,
        away: Text | None,
        frames_B6: torch.Tensor,
        guidance: float,
        first: int = 0,
    ) -> torch.Tensor:
        """Go from the noise level of step `first` to none: latents (B, C, H, W).

        away: what classifier-free guidance leads away from (Ho and Salimans, arXiv 2207.12598, eq. 6, where w is
        guidance - 1); None, or guidance 1: no guidance.
        """
        if hasattr(self.scheduler, "set_begin_index"):
            self.scheduler.set_timesteps(len(self.timesteps))  # forgets where the last batch ended
            self.scheduler.set_begin_index(first)
        latents = noised_BCHW
        for timestep in self.timesteps[first:]:
            timesteps_B = timestep.to(latents.device).expand(len(latents))

            def ask(read: Text, now: torch.Tensor = latents, when: torch.Tensor = timesteps_B) -> torch.Tensor:
                return denoiser.family.answer(denoiser.network, now, when, read, frames_B6)

            answer = ask(text)
            if away is not None and guidance != 1:
                answer = torch.lerp(ask(away), answer, guidance)
            latents = self.scheduler.step(answer, timestep, latents).prev_sample
        return latents
