"""method full: every weight of the UNet learns to denoise latents."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image

from stages.core.draws import seed_of
from stages.core.errors import StageError
from stages.core.latents import Latents, latents_digest
from stages.core.models import load_pipeline, load_schedule, load_unet, load_vae
from stages.core.noise import normal
from stages.core.objective import denoising_losses, validation_curve
from stages.core.sampling import Drawing, contact_sheet, draw, set_scheduler
from stages.core.weights import save_unet_weights
from stages.train.loop import choose_caption
from stages.train.params import TrainParams


@dataclass
class Denoiser:
    """The diffusion objective (see `stages.core.objective`) on stored latents."""

    params: TrainParams
    model: UNet2DConditionModel
    schedule: DDPMScheduler
    train: Latents
    validation: Latents
    scaling_factor: float
    base: Path

    def __len__(self) -> int:
        return len(self.train)

    @property
    def digest(self) -> str:
        return latents_digest(self.train.folder)

    @property
    def groups(self) -> Sequence[Sequence[int]]:
        return self.train.groups

    def losses(self, samples: Sequence[int], rows: Sequence[int]) -> tuple[torch.Tensor, list[str]]:
        """The denoiser's errors (B,) at noise and timesteps drawn for these samples."""
        params, device = self.params, self.model.device
        batch = self.train.read(rows)
        shape = tuple(batch.mean.shape[1:])
        named = list(zip(samples, batch.keys, strict=True))
        spread = torch.stack([normal(shape, params.seed, "posterior", *name) for name in named])
        noise = torch.stack([normal(shape, params.seed, "noise", *name) for name in named])
        most = self.schedule.config.num_train_timesteps
        timesteps = torch.tensor([seed_of(params.seed, "timestep", *name) % most for name in named])
        captions = [choose_caption(params, listed, *name) for listed, name in zip(batch.captions, named, strict=True)]
        losses = denoising_losses(
            self.model,
            self.schedule,
            ((batch.mean + batch.std * spread) * self.scaling_factor).to(device),
            self.train.text(captions).to(device),
            noise.to(device),
            timesteps.to(device),
        )
        return losses, batch.keys

    def validate(self) -> dict[str, float]:
        """The mean loss over timesteps, and of the thirds with the least and the most noise."""
        if not len(self.validation):
            return {}
        params = self.params
        curve = validation_curve(
            self.model,
            self.schedule,
            self.validation,
            self.scaling_factor,
            params.validation_pictures,
            params.validation_bins,
            params.seed,
        )
        third = max(1, len(curve) // 3)
        parts = {"loss": curve, "low_noise_loss": curve[:third], "high_noise_loss": curve[-third:]}
        return {name: sum(part) / len(part) for name, part in parts.items()}

    def preview(self) -> Image.Image | None:
        """A sheet of the preview prompts, drawn with the base's other parts.

        As wide as the training pictures; where they are of several sizes, as the model is meant for.
        """
        prompts = self.params.preview_prompts
        if not prompts:
            return None
        pipeline = self._pipeline
        pipeline.unet = self.model
        pipeline.to(self.model.device)
        one = len(self.groups) == 1
        width = self.train.read([0]).mean.shape[-1] if one else self.model.config.sample_size
        side = width * pipeline.vae_scale_factor
        drawings = [Drawing(prompt, seed) for seed, prompt in enumerate(prompts)]
        steps, guidance = self.params.preview_steps, self.params.preview_guidance
        return contact_sheet(draw(pipeline, drawings, steps, guidance, "", side, 8), prompts, columns=4)

    @cached_property
    def _pipeline(self) -> StableDiffusionPipeline:
        pipeline = load_pipeline(self.base)
        set_scheduler(pipeline, "ddim")
        return pipeline

    def save(self, weights: dict[str, torch.Tensor], about: dict[str, Any], out: Path) -> None:
        """Write the base with these weights in place of its UNet's."""
        shutil.copytree(self.base, out, dirs_exist_ok=True)
        for path in (out / "unet").glob("*.safetensors*"):  # a large base has several, and an index of them
            path.unlink()
        save_unet_weights(weights, out, about)


def open_denoiser(params: TrainParams, latents: Path, base: Path) -> Denoiser:
    """Open base and latents. Raises StageError if they don't fit each other."""
    unet, train = load_unet(base), Latents(latents, "train")
    if not len(train):
        raise StageError("train", "there are no training pictures", "lower clean.validation_share")
    batch = train.read([0])
    channels, width = batch.mean.shape[1], train.text([0]).shape[2]
    if (channels, width) != (unet.config.in_channels, unet.config.cross_attention_dim):
        raise StageError(
            "train",
            f"latents of {channels} channels and text of width {width} don't fit a UNet of "
            f"{unet.config.in_channels} and {unet.config.cross_attention_dim}",
            "run encode with this base",
        )
    factor = load_vae(base).config.scaling_factor
    return Denoiser(params, unet, load_schedule(base), train, Latents(latents, "validation"), factor, base)
