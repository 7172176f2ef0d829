"""Whole pipelines of every family, as small as their classes allow."""

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from stages.base.random_model import character_tokenizer
from stages.core.original_names import Family

FAMILIES: tuple[Family, ...] = ("sd1", "sd2", "sdxl")


def text_config(width: int, layers: int, act: str, projection: int = 16) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=514,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        hidden_act=act,
        projection_dim=projection,
        bos_token_id=512,
        eos_token_id=513,
        pad_token_id=513,
    )


def tiny(family: Family, seed: int = 0, layers: int = 1) -> StableDiffusionPipeline | StableDiffusionXLPipeline:
    """A pipeline of a family, as small as its classes allow, with random weights."""
    torch.manual_seed(seed)
    xl = family == "sdxl"
    vae = AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        block_out_channels=[4, 8],
        layers_per_block=layers,
        norm_num_groups=2,
        sample_size=16,
    )
    extra: dict[str, Any] = (
        {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 4,
            "projection_class_embeddings_input_dim": 4 * 6 + 16,
            "transformer_layers_per_block": (1, 2, 2),
        }
        if xl
        else {}
    )
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=[8, 8, 16],
        down_block_types=["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        up_block_types=["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        layers_per_block=layers,
        cross_attention_dim=40 if xl else 16,
        attention_head_dim=4,
        norm_num_groups=4,
        use_linear_projection=family != "sd1",
        **extra,
    )
    parts = {
        "vae": vae,
        "unet": unet,
        "tokenizer": character_tokenizer(),
        "scheduler": DDIMScheduler(clip_sample=False, set_alpha_to_one=False, steps_offset=1),
    }
    first = CLIPTextModel(text_config(16, 2, "gelu" if family == "sd2" else "quick_gelu"))
    if xl:
        second = CLIPTextModelWithProjection(text_config(24, 2, "gelu"))
        return StableDiffusionXLPipeline(
            **parts, text_encoder=first, text_encoder_2=second, tokenizer_2=character_tokenizer()
        )
    return StableDiffusionPipeline(
        **parts, text_encoder=first, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )


def tensors_of(pipeline: Any) -> dict[str, torch.Tensor]:
    parts = ("unet", "vae", "text_encoder", "text_encoder_2")
    return {
        f"{part}.{name}": tensor
        for part in parts
        if getattr(pipeline, part, None) is not None
        for name, tensor in getattr(pipeline, part).state_dict().items()
    }


def tensors_below(folder: Path) -> dict[str, torch.Tensor]:
    return {
        f"{path.parent.name}.{name}": tensor
        for path in sorted(folder.glob("*/*.safetensors"))
        for name, tensor in load_file(path).items()
    }
