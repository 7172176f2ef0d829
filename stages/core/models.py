"""Open the parts of a pipeline's folder, from safetensors only."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL

from stages.core.errors import StageError


@dataclass(frozen=True)
class Scale:
    """How latents are brought to about unit variance: (z - shift) * factor."""

    factor: float
    shift: float = 0.0

    def apply(self, latents: torch.Tensor) -> torch.Tensor:
        return (latents - self.shift) * self.factor

    def undo(self, latents: torch.Tensor) -> torch.Tensor:
        return latents / self.factor + self.shift


def load_vae(model: Path) -> AutoencoderKL:
    """The autoencoder between pictures and latents, float32, for inference."""
    return load_part(AutoencoderKL, model, "vae").eval().requires_grad_(False)


def load_scale(model: Path) -> Scale:
    """The scale of the autoencoder's latents; its weights stay closed."""
    config = json.loads((part_of(model, "vae") / "config.json").read_text(encoding="utf-8"))
    # 0.18215 is Stable Diffusion 1's, which old folders leave out (Rombach et al., appendix G)
    return Scale(config.get("scaling_factor", 0.18215), config.get("shift_factor") or 0.0)


def load_part(kind: Any, model: Path, name: str, weights: bool = True, **changes: Any) -> Any:
    """The part `name` of the folder as an object of class `kind`; its weights as float32 on the CPU.

    Raises StageError if the folder has no such part.
    """
    folder = part_of(model, name)
    if weights:
        changes |= {"use_safetensors": True, "torch_dtype": torch.float32}
    return kind.from_pretrained(folder, local_files_only=True, **changes)


def part_of(model: Path, name: str) -> Path:
    """The part's folder. Raises StageError if it is missing."""
    folder = model / name
    if not folder.is_dir():
        raise StageError(str(model), f"has no part {name}", "run base again")
    return folder


def best_device() -> torch.device:
    """A CUDA GPU, Apple's MPS, or the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
