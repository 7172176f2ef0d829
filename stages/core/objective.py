"""The diffusion objective: what the denoiser is asked, and how wrong it is.

Shapes: B pictures, C latent channels, H x W latent pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from stages.core.families.family import Family, Text, load_denoiser
from stages.core.families.known import family_of
from stages.core.latents import Latents
from stages.core.models import Scale, load_scale
from stages.core.noise import normal
from stages.core.process import Process, load_process
from stages.core.sizes import by_size

# Further arguments of the denoiser's call, made of what it is called with: noised latents, timesteps, text, frames.
Further = Callable[[torch.Tensor, torch.Tensor, Text, torch.Tensor], dict[str, Any]]


@dataclass
class Denoiser:
    """A denoiser's network with all that says what it is asked. scale: of the latents it knows."""

    family: Family
    network: Any
    process: Process
    scale: Scale

    def ask(
        self,
        latents_BCHW: torch.Tensor,
        text: Text,
        frames_B6: torch.Tensor,
        noise_BCHW: torch.Tensor,
        timesteps_B: torch.Tensor,
        further: Further | None = None,
        perturbed_BCHW: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Its answer and what that should be, (B, C, H, W) float32.

        Latents are scaled. perturbed_BCHW: noise of the input, where the answer is asked of another.
        """
        noise_seen = noise_BCHW if perturbed_BCHW is None else perturbed_BCHW
        noised = self.process.noised(latents_BCHW, noise_seen, timesteps_B)
        noised = noised.contiguous(memory_format=torch.channels_last)
        more = further(noised, timesteps_B, text, frames_B6) if further else {}
        answer = self.family.answer(self.network, noised, timesteps_B, text, frames_B6, **more)
        return answer.float(), self.process.target(latents_BCHW, noise_BCHW, timesteps_B).float()


def open_denoiser(model: Path, **schedule: Any) -> Denoiser:
    """A model's denoiser, float32, on the CPU; schedule: changes to its noise schedule."""
    family = family_of(model)
    return Denoiser(family, load_denoiser(family, model), load_process(model, **schedule), load_scale(model))


@torch.no_grad()
def validation_losses(
    denoiser: Denoiser,
    latents: Latents,
    pictures: int,
    bins: int,
    seed: int,
    text: Callable[[Sequence[int]], Text] | None = None,
    further: Callable[[Sequence[int]], Further | None] = lambda _: None,
    batch_size: int = 64,
) -> torch.Tensor:
    """Squared error of each picture at the middle of each of `bins` equal parts of the levels, (bins, B) float64.

    One number over random timesteps hides what a model gains: its spread over timesteps is far larger than what
    training changes. Hence fixed timesteps, pictures and noise: the first `pictures` by key, their first caption (the
    empty one where there is none); a batch is of one size.
    text: of captions by number, on the device, if not the stored ones. further: of rows.
    """
    network = denoiser.network
    device = next(network.parameters()).device
    sizes = latents.sizes[:pictures]
    batches = [rows[start : start + batch_size] for rows in by_size(sizes) for start in range(0, len(rows), batch_size)]
    network.eval()
    losses = torch.zeros(bins, len(sizes), dtype=torch.float64)
    for part in range(bins):
        for rows in batches:
            batch = latents.read(rows)
            noise = torch.stack(
                [normal(tuple(batch.mean.shape[1:]), seed, "validation", part, key) for key in batch.keys]
            )
            levels = torch.full((len(rows),), (part + 0.5) / bins)
            answer, target = denoiser.ask(
                denoiser.scale.apply(batch.mean).to(device),
                (text or latents.text)([captions[0] if captions else 0 for captions in batch.captions]).to(device),
                batch.frames.to(device),
                noise.to(device),
                denoiser.process.timesteps(levels).to(device),
                further(rows),
            )
            losses[part, rows] = (answer - target).square().mean(dim=(1, 2, 3)).cpu().double()
    return losses
