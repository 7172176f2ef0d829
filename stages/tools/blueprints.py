"""What a base model is made of, without its weights: the configurations of its parts, from its folder or as known."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL, DiffusionPipeline
from diffusers.utils import logging

from stages.base.params import BaseParams
from stages.base.random_families import build
from stages.core.errors import StageError
from stages.core.families.family import T5, T5_TOKENS, Family
from stages.core.families.known import FAMILIES, family_of

Config = Mapping[str, Any]

CLIP_L: Config = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "projection_dim": 768,
    "vocab_size": 49408,
}
CLIP_H: Config = {
    **CLIP_L,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 23,
    "num_attention_heads": 16,
}
CLIP_BIGG: Config = {
    **CLIP_L,
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "projection_dim": 1280,
}
T5_XXL: Config = {
    "d_model": 4096,
    "d_ff": 10240,
    "d_kv": 64,
    "num_heads": 64,
    "num_layers": 24,
    "vocab_size": 32128,
    "feed_forward_proj": "gated-gelu",
}
VAE: Config = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "sample_size": 512,
}


@dataclass(frozen=True)
class Blueprint:
    """A base model's parts as configurations. source: where they are from."""

    name: str
    source: str
    family: Family
    denoiser: Config
    vae: Config
    encoders: Mapping[str, Config]

    @property
    def factor(self) -> int:
        """Pixels that a latent is wide."""
        return int(2 ** (len(self.vae["block_out_channels"]) - 1))

    @property
    def text_length(self) -> int:
        """Tokens that the denoiser reads."""
        length = next(iter(self.encoders.values())).get("max_position_embeddings", 77)
        return int(length) + (T5_TOKENS if T5 in self.family.encoders else 0)

    def make_denoiser(self) -> Any:
        return self.family.network.from_config(dict(self.denoiser))

    def make_vae(self) -> Any:
        return AutoencoderKL.from_config(dict(self.vae))

    def make_encoder(self, name: str) -> Any:
        kind = self.family.encoders[name]
        return kind(kind.config_class(**self.encoders[name]))


SD, SDXL, SD3 = FAMILIES.values()
# As in config.json of the parts of stable-diffusion-v1-5/stable-diffusion-v1-5, stabilityai/stable-diffusion-2-1,
# stabilityai/stable-diffusion-xl-base-1.0, stabilityai/stable-diffusion-3-medium-diffusers and 3.5-medium, where it
# isn't the class's default. The tests hold them to the published numbers of weights.
PRESETS = {
    "sd15": Blueprint(
        "Stable Diffusion 1.5",
        "as published",
        SD,
        {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8},
        VAE,
        {"text_encoder": CLIP_L},
    ),
    "sd21": Blueprint(
        "Stable Diffusion 2.1",
        "as published",
        SD,
        {
            "sample_size": 96,
            "cross_attention_dim": 1024,
            "attention_head_dim": [5, 10, 20, 20],
            "use_linear_projection": True,
        },
        {**VAE, "sample_size": 768},
        {"text_encoder": CLIP_H},
    ),
    "sdxl": Blueprint(
        "Stable Diffusion XL",
        "as published",
        SDXL,
        {
            "sample_size": 128,
            "block_out_channels": (320, 640, 1280),
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            "transformer_layers_per_block": [1, 2, 10],
            "attention_head_dim": [5, 10, 20],
            "cross_attention_dim": 2048,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
            "use_linear_projection": True,
        },
        {**VAE, "sample_size": 1024},
        {"text_encoder": CLIP_L, "text_encoder_2": CLIP_BIGG},
    ),
    "sd3": Blueprint(
        "Stable Diffusion 3 medium",
        "as published",
        SD3,
        {
            "sample_size": 128,
            "out_channels": 16,
            "num_layers": 24,
            "num_attention_heads": 24,
            "caption_projection_dim": 1536,
            "pos_embed_max_size": 192,
        },
        {**VAE, "sample_size": 1024, "latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False},
        {"text_encoder": CLIP_L, "text_encoder_2": CLIP_BIGG, T5: T5_XXL},
    ),
}
PRESETS["sd35"] = replace(
    PRESETS["sd3"],
    name="Stable Diffusion 3.5 Medium",
    denoiser={
        **PRESETS["sd3"].denoiser,
        "pos_embed_max_size": 384,
        "dual_attention_layers": tuple(range(13)),
        "qk_norm": "rms_norm",
    },
)
# Parts of hub ids by which they are told.
KNOWN = {
    "stable-diffusion-v1-": "sd15",
    "stable-diffusion-2": "sd21",
    "stable-diffusion-xl-base": "sdxl",
    "stable-diffusion-3-medium": "sd3",
    "stable-diffusion-3.5-medium": "sd35",
}


def blueprint_of(params: BaseParams, shipped: Path, imported: Path) -> Blueprint:
    """The model that params name. Raises StageError for a hub id of which nothing is known here."""
    if params.model == shipped.name:
        return read_blueprint(shipped, params.model)
    place = params.place(imported)
    if place is None:
        return of_pipeline(build(params.model.partition(":")[2], params.seed), params.model)
    name, commit = place
    if commit is None:
        return read_blueprint(Path(name), params.model)
    for part, preset in KNOWN.items():
        if part in name.lower():
            return PRESETS[preset]
    raise StageError(
        "base.model",
        f"of {name} no configuration is known here",
        "run `dvc repro base`, then plan with --base models/base",
    )


def read_blueprint(model: Path, name: str) -> Blueprint:
    """The configurations of a diffusers folder's parts. Raises StageError where one is missing."""
    family = family_of(model)

    def config(part: str) -> Config:
        path = model / part / "config.json"
        if not path.is_file():
            raise StageError(str(model), f"has no {part}/config.json", "complete the folder")
        return dict(json.loads(path.read_text(encoding="utf-8")))

    encoders = {part: config(part) for part in family.encoders if (model / part).is_dir()}
    return Blueprint(name, f"of {model}", family, config(family.denoiser), config("vae"), encoders)


def of_pipeline(pipeline: DiffusionPipeline, name: str) -> Blueprint:
    """The configurations of a pipeline that was made here."""
    logging.disable_progress_bar()
    family = FAMILIES[type(pipeline).__name__]
    encoders = {part: getattr(pipeline, part).config.to_dict() for part in family.encoders}
    return Blueprint(
        name, "made here", family, dict(getattr(pipeline, family.denoiser).config), dict(pipeline.vae.config), encoders
    )
