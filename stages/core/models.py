"""Open the parts of a Stable Diffusion pipeline folder, from safetensors only.

Shapes below: B pictures, C latent channels, H x W latent pixels, L tokens (77), D text width.
"""

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.utils import logging
from transformers import CLIPTextModel, CLIPTokenizer

from stages.core.errors import StageError


def load_unet(model: Path) -> UNet2DConditionModel:
    """The denoiser, float32, on the CPU."""
    return _load(UNet2DConditionModel, model, "unet")


def load_vae(model: Path) -> AutoencoderKL:
    """The autoencoder between pictures and latents, float32, for inference."""
    return _load(AutoencoderKL, model, "vae").eval().requires_grad_(False)


def load_text_encoder(model: Path) -> CLIPTextModel:
    """The text encoder, float32, for inference."""
    return _load(CLIPTextModel, model, "text_encoder").eval().requires_grad_(False)


def load_tokenizer(model: Path) -> CLIPTokenizer:
    """From text to the text encoder's token numbers."""
    return CLIPTokenizer.from_pretrained(_part(model, "tokenizer"))


def load_schedule(model: Path) -> DDPMScheduler:
    """The noise schedule that the model was trained with, whatever sampler its folder names."""
    return DDPMScheduler.from_pretrained(_part(model, "scheduler"))


def load_pipeline(model: Path) -> StableDiffusionPipeline:
    """Everything at once, to draw pictures with. No safety checker is part of it."""
    logging.disable_progress_bar()
    return StableDiffusionPipeline.from_pretrained(
        model,
        use_safetensors=True,
        local_files_only=True,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _load(kind: Any, model: Path, name: str) -> Any:
    return kind.from_pretrained(
        _part(model, name), use_safetensors=True, local_files_only=True, torch_dtype=torch.float32
    )


def _part(model: Path, name: str) -> Path:
    folder = model / name
    if not folder.is_dir():
        raise StageError(str(model), f"has no part {name}", "run base again")
    return folder


def best_device() -> torch.device:
    """A CUDA GPU, Apple's MPS, or the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
