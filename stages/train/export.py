"""What other programs open: kohya's LoRA files, and single files with Stable Diffusion's original key names."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from stages.core.errors import StageError
from stages.core.lora_names import Adapter, to_kohya
from stages.core.original_names import Family, to_original
from stages.core.weights import save_weights

ARCHITECTURES: dict[Family, str] = {
    "sd1": "stable-diffusion-v1",
    "sd2": "stable-diffusion-v2",
    "sdxl": "stable-diffusion-xl-v1-base",
}
PARTS = ("unet", "vae", "text_encoder", "text_encoder_2")


def original_family(model: Path) -> Family | None:
    """Whose names a single file of this model has; None for families without a common one (Stable Diffusion 3)."""
    kind = json.loads((model / "model_index.json").read_text(encoding="utf-8"))["_class_name"]
    if kind == "StableDiffusionXLPipeline":
        return "sdxl"
    if kind != "StableDiffusionPipeline":
        return None
    # Stable Diffusion 2 reads OpenCLIP's text encoder, which has the exact activation; 1 reads OpenAI's.
    config = json.loads((model / "text_encoder" / "config.json").read_text(encoding="utf-8"))
    return "sd2" if config.get("hidden_act") == "gelu" else "sd1"


def require_single_file(model: Path) -> None:
    """Raises StageError if models of this family have no single file."""
    if original_family(model) is None:
        raise StageError("train.single_file", "is for Stable Diffusion 1, 2 and XL", "turn it off")


def write_single_file(model: Path, out: Path, about: dict[str, Any]) -> None:
    """The whole folder as one file, as AUTOMATIC1111, ComfyUI and `from_single_file` open it, in the denoiser's type.

    Metadata: what it was made of, with the fields of ModelSpec 1.0.0 (Stability AI) that don't change with the clock.
    """
    family = original_family(model)
    if family is None:
        raise ValueError(f"{model} has no single file")
    tensors = {
        f"{part}.{name}": tensor
        for part in PARTS
        if (model / part).is_dir()
        for path in sorted((model / part).glob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }
    dtype = next(tensor.dtype for name, tensor in tensors.items() if name.startswith("unet."))
    whole = {
        key: tensor.to(dtype) if tensor.is_floating_point() else tensor
        for key, tensor in to_original(family, tensors).items()
    }
    schedule = json.loads((model / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8"))
    kind = schedule.get("prediction_type", "epsilon")
    spec = {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": ARCHITECTURES[family],
        "modelspec.implementation": "https://github.com/Stability-AI/generative-models",
        "modelspec.title": f"darkroom {about['method']}",
        "modelspec.prediction_type": "v" if kind == "v_prediction" else kind,
    }
    save_weights(whole, out, about | spec)


def write_kohya(
    model: Path, adapter: dict[str, torch.Tensor], modules: list[str], out: Path, about: dict[str, Any]
) -> bool:
    """A LoRA as sd-scripts writes it, and whether there is such a file for the family.

    adapter: `<part>.<module>.lora_A.weight` and `.lora_B.weight`, scaled so that alpha is the rank. modules: every
    module of the adapted parts that has a weight.
    """
    family = original_family(model)
    if family is None:
        return False
    ends = (".lora_A.weight", ".lora_B.weight")
    pairs = {
        name.removesuffix(ends[0]): (tensor, adapter[name.replace(*ends)])
        for name, tensor in adapter.items()
        if name.endswith(ends[0])
    }
    adapters = {module: Adapter(down, up, down.shape[0]) for module, (down, up) in pairs.items()}
    save_weights(to_kohya(family, adapters, modules), out, about)
    return True
