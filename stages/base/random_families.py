"""Stable Diffusion XL and 3 in miniature with random weights: every part of the real class, a few thousand weights."""

from collections.abc import Callable
from dataclasses import replace

import torch
from diffusers import (
    DiffusionPipeline,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import Unigram
from transformers import (
    CLIPTextModel,
    CLIPTextModelWithProjection,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from stages.base.random_model import SIZES, character_tokenizer, random_pipeline, random_vae, text_config

WIDTHS = (32, 48)  # of the text encoders, which single files tell apart by them


def random_sdxl(seed: int) -> StableDiffusionXLPipeline:
    """Two text encoders, a UNet that is told six numbers of 8 features each beside the pooled text."""
    tokenizer = character_tokenizer()
    torch.manual_seed(seed)
    kinds = (CLIPTextModel, CLIPTextModelWithProjection)
    encoders = [kind(text_config(tokenizer, width, 2)) for kind, width in zip(kinds, WIDTHS, strict=True)]
    unet = UNet2DConditionModel(
        sample_size=4,
        in_channels=4,
        out_channels=4,
        block_out_channels=[16, 32],
        down_block_types=["DownBlock2D", "CrossAttnDownBlock2D"],
        up_block_types=["CrossAttnUpBlock2D", "UpBlock2D"],
        layers_per_block=1,
        cross_attention_dim=sum(WIDTHS),
        attention_head_dim=4,
        norm_num_groups=16,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + WIDTHS[1],
        use_linear_projection=True,
    )
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="leading", steps_offset=1
    )
    return StableDiffusionXLPipeline(
        vae=random_vae(SIZES["tiny"]),
        text_encoder=encoders[0],
        text_encoder_2=encoders[1],
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=unet,
        scheduler=scheduler,
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    )


def random_sd3(seed: int) -> StableDiffusion3Pipeline:
    """Three text encoders, 16 latent channels, a transformer of two blocks."""
    tokenizer, letters = character_tokenizer(), letter_tokenizer()
    torch.manual_seed(seed)
    encoders = [CLIPTextModelWithProjection(text_config(tokenizer, width, 2)) for width in WIDTHS]
    t5 = T5EncoderModel(
        T5Config(vocab_size=len(letters), d_model=sum(WIDTHS), d_kv=8, d_ff=64, num_layers=1, num_heads=4)
    )
    transformer = SD3Transformer2DModel(
        sample_size=4,
        patch_size=2,
        in_channels=16,
        out_channels=16,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=sum(WIDTHS),
        caption_projection_dim=32,
        pooled_projection_dim=sum(WIDTHS),
        pos_embed_max_size=16,
    )
    vae = random_vae(replace(SIZES["tiny"], latent_channels=16))
    vae.register_to_config(shift_factor=0.0609)
    return StableDiffusion3Pipeline(
        vae=vae,
        text_encoder=encoders[0],
        text_encoder_2=encoders[1],
        text_encoder_3=t5,
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        tokenizer_3=letters,
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )


def letter_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of T5's kind (unigram, "</s>" at the end) whose words are the printable ASCII characters."""
    words = ["<pad>", "</s>", "<unk>", "▁", *map(chr, range(33, 127))]
    tokenizer = Tokenizer(Unigram([(word, 0.0) for word in words], unk_id=2))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=256, **special)


BUILDERS: dict[str, Callable[[int], DiffusionPipeline]] = {"tiny-sdxl": random_sdxl, "tiny-sd3": random_sd3}


def build(name: str, seed: int) -> DiffusionPipeline:
    """The pipeline of the named size; the same seed gives the same weights."""
    return BUILDERS[name](seed) if name in BUILDERS else random_pipeline(name, seed)
