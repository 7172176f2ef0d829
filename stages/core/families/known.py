"""Which family a model's folder is of."""

import json
from pathlib import Path
from typing import Any

from diffusers.utils import logging

from stages.core.errors import StageError
from stages.core.families.family import Family
from stages.core.families.sd import StableDiffusion
from stages.core.families.sd3 import StableDiffusion3
from stages.core.families.sdxl import StableDiffusionXL

FAMILIES: dict[str, Family] = {
    family.pipeline.__name__: family for family in (StableDiffusion(), StableDiffusionXL(), StableDiffusion3())
}


def family_of(model: Path) -> Family:
    """By model_index.json. Raises StageError if it isn't there, or names a pipeline that isn't known here."""
    index = model / "model_index.json"
    if not index.is_file():
        raise StageError(str(model), "is no diffusers folder: it has no model_index.json", "convert the model first")
    kind = json.loads(index.read_text(encoding="utf-8")).get("_class_name")
    if kind not in FAMILIES:
        raise StageError(str(index), f"is a {kind}", f"use one of {', '.join(FAMILIES)}")
    return FAMILIES[kind]


def empty_is_zero(model: Path) -> bool:
    """Whether the empty caption is zeros, as Stable Diffusion XL's guidance has it, instead of its embedding."""
    index = json.loads((model / "model_index.json").read_text(encoding="utf-8"))
    return bool(index.get("force_zeros_for_empty_prompt"))


def load_pipeline(model: Path) -> Any:
    """Everything at once, to draw pictures with. No safety checker is part of it."""
    logging.disable_progress_bar()
    family = family_of(model)
    absent: dict[str, Any] = {name: None for name in family.optional if not (model / name).is_dir()}
    if family.name == StableDiffusion.name:
        absent = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    return family.pipeline.from_pretrained(model, use_safetensors=True, local_files_only=True, **absent)
