"""A model's LoRA by another strength: the weights hold it at 1, its own file lies in `adapter`."""

import hashlib
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from stages.core.errors import StageError

FILE = Path("adapter", "pytorch_lora_weights.safetensors")
DOWN, UP = ".lora_A.weight", ".lora_B.weight"


class Strength:
    """Weights W at strength 1 become W + (strength - 1) B A (Hu et al., arXiv 2106.09685), for every strength anew."""

    def __init__(self, pipeline: Any, model: Path) -> None:
        """Raises StageError if the model has no LoRA, or one whose strength is no factor (DoRA)."""
        self.file = model / FILE
        if not has_adapter(model):
            raise StageError(str(model), "has no adapter", "train it with method lora, or leave the strength out")
        tensors = load_file(self.file)
        if any("lora_magnitude_vector" in name for name in tensors):
            raise StageError(str(self.file), "is a DoRA: its strength is no factor", "leave the strength out")
        self.changes: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []  # weight, as it was, B A
        for name, down in tensors.items():
            if name.endswith(DOWN):
                part, _, module = name.removesuffix(DOWN).partition(".")
                weight = getattr(pipeline, part).get_submodule(module).weight
                change = (tensors[name.replace(DOWN, UP)].float().flatten(1) @ down.float().flatten(1)).to(weight)
                self.changes.append((weight.data, weight.data.clone(), change.view_as(weight)))

    def set(self, strength: float) -> None:
        """Change the pipeline's weights; 1 gives the model's own."""
        for weight, own, change in self.changes:
            weight.copy_(own if strength == 1 else own + (strength - 1) * change)


def has_adapter(model: Path) -> bool:
    """Whether a LoRA lies beside the weights that hold it."""
    return (model / FILE).is_file()


def content_digest(file: Path) -> str:
    """sha256 of a safetensors file without its header, by which AUTOMATIC1111's web UI names a LoRA."""
    with file.open("rb") as opened:
        opened.seek(8 + int.from_bytes(opened.read(8), "little"))
        return hashlib.file_digest(opened, "sha256").hexdigest()
