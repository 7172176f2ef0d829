"""Models to merge: folders with a handful of tensors, and how to merge and read them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from stages.merge.params import MergeParams
from stages.merge.run import main

FILES = {
    "unet": "diffusion_pytorch_model",
    "transformer": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
}
Tensors = Mapping[str, torch.Tensor]


def random_tensors(seed: int, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """A few of each kind of tensor that a Stable Diffusion 1 has, in every part; one of whole numbers."""
    draws = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=draws).to(dtype)

    return {
        "unet.conv_in.weight": normal(8, 4, 3, 3),
        "unet.conv_in.bias": normal(8),
        "unet.down_blocks.0.resnets.0.conv1.weight": normal(8, 8, 3, 3),
        "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight": normal(8, 8),
        "unet.down_blocks.0.downsamplers.0.conv.weight": normal(8, 8, 3, 3),
        "unet.down_blocks.1.resnets.0.conv1.weight": normal(16, 8, 3, 3),
        "unet.mid_block.resnets.0.norm1.weight": normal(16),
        "unet.up_blocks.0.resnets.0.conv1.weight": normal(16, 16, 3, 3),
        "unet.up_blocks.1.resnets.1.conv1.weight": normal(8, 16, 3, 3),
        "unet.conv_out.weight": normal(4, 8, 3, 3),
        "vae.encoder.conv_in.weight": normal(4, 3, 3, 3),
        "vae.decoder.mid_block.attentions.0.to_q.weight": normal(4, 4),
        "text_encoder.embeddings.token_embedding.weight": normal(20, 8),
        "text_encoder.encoder.layers.0.self_attn.q_proj.weight": normal(8, 8),
        "text_encoder.embeddings.position_ids": torch.arange(5) + seed,
    }


def near(tensors: Tensors, seed: int, by: float = 0.1) -> dict[str, torch.Tensor]:
    """A fine-tune: the tensors and some noise, in their type."""
    noise = random_tensors(seed)
    return {
        name: (t.float() + by * noise[name]).to(t.dtype) if t.is_floating_point() else t for name, t in tensors.items()
    }


def folder(path: Path, tensors: Tensors, prediction: str = "epsilon", scaling: float = 0.18215, act: str = "") -> Path:
    """A diffusers folder of these tensors."""
    parts = sorted({name.partition(".")[0] for name in tensors})
    kind = "StableDiffusion3Pipeline" if "transformer" in parts else "StableDiffusionPipeline"
    index = {"_class_name": kind, **{part: ["library", "Class"] for part in parts}}
    for part in {*parts, "scheduler", "vae", "text_encoder"}:
        (path / part).mkdir(parents=True)
    (path / "model_index.json").write_text(json.dumps(index))
    (path / "scheduler" / "scheduler_config.json").write_text(json.dumps({"prediction_type": prediction}))
    (path / "vae" / "config.json").write_text(json.dumps({"scaling_factor": scaling}))
    (path / "text_encoder" / "config.json").write_text(json.dumps({"hidden_act": act or "quick_gelu"}))
    for part in parts:
        own = {name.partition(".")[2]: t for name, t in tensors.items() if name.startswith(f"{part}.")}
        save_file(own, path / part / f"{FILES[part]}.safetensors", metadata={"format": "pt"})
    return path


def read(path: Path) -> dict[str, torch.Tensor]:
    """A folder's tensors by name."""
    return {
        f"{file.parent.name}.{key}": tensor
        for file in sorted(path.glob("*/*.safetensors"))
        for key, tensor in load_file(file).items()
    }


class Kitchen:
    """Models in a folder, and recipes that are tried on them."""

    def __init__(self, root: Path) -> None:
        self.root, self.base, self.trained = root, root / "models" / "base", root / "models" / "trained"
        self.imported = root / "models" / "imported"
        self.imported.mkdir(parents=True)
        (root / ".dvc").mkdir()

    def put(self, base: Tensors, trained: Tensors, **imported: Tensors) -> "Kitchen":
        folder(self.base, base)
        folder(self.trained, trained)
        for name, tensors in imported.items():
            folder(self.imported / name, tensors)
        return self

    def cook(self, name: str = "x", **recipe: Any) -> dict[str, torch.Tensor]:
        """What a recipe gives."""
        main(MergeParams.model_validate({name: recipe}), name, self.base, self.trained, self.imported, self.out(name))
        return read(self.out(name))

    def out(self, name: str = "x") -> Path:
        return self.root / "models" / "merged" / name
