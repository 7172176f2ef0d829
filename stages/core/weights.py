"""A denoiser's tensors on disk."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from stages.core.errors import StageError

WEIGHTS = "diffusion_pytorch_model.safetensors"  # of a denoiser or autoencoder, in its part's folder
UNET_WEIGHTS = Path("unet", WEIGHTS)


def load_unet_weights(model: Path) -> dict[str, torch.Tensor]:
    """The tensors as stored, by name. Raises StageError if the file is missing or broken."""
    path = model / UNET_WEIGHTS
    try:
        weights: dict[str, torch.Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise StageError(str(path), f"can't be read ({error})", "make the model again") from None
    return weights


def save_unet_weights(weights: dict[str, torch.Tensor], model: Path, about: dict[str, Any]) -> None:
    """Write the tensors into a model's folder; `about` says where they come from."""
    save_weights(weights, model / UNET_WEIGHTS, about)


def save_weights(weights: dict[str, torch.Tensor], path: Path, about: dict[str, Any]) -> None:
    """Write tensors and, in the file's metadata, what they come from.

    One JSON value in one metadata key: safetensors writes several keys in random order.
    """
    metadata = {"darkroom": json.dumps(about, sort_keys=True)}
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, path, metadata=metadata)
