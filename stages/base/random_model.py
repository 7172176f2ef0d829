"""A whole Stable Diffusion in miniature with random weights: every part of the real class, only small."""

from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.resnet import ResnetBlock2D
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer


@dataclass(frozen=True)
class Size:
    """Widths of the parts. resolution: px, what the model is meant for. reads_text: the UNet's levels, finest first."""

    resolution: int
    vae: tuple[int, ...]
    unet: tuple[int, ...]
    text_width: int
    text_layers: int
    reads_text: tuple[bool, ...]
    latent_channels: int = 4
    vae_groups: int = 8
    vae_starts_linear: bool = False
    text_length: int = 77


SIZES = {
    "tiny": Size(
        resolution=32, vae=(8, 8, 8, 8), unet=(16, 32), text_width=32, text_layers=1, reads_text=(False, True)
    ),
    "mini": Size(
        resolution=64,
        vae=(16, 24, 32, 32),
        unet=(48, 96, 128),
        text_width=96,
        text_layers=2,
        reads_text=(False, True, True),
    ),
    # What recipes/pretrain-tiny.yaml starts from. A latent has 16 times fewer numbers than its picture; the VAE has few
    # channels at full size, where they cost most.
    "small": Size(
        resolution=64,
        vae=(16, 32, 64, 128),
        unet=(64, 128, 256),
        text_width=128,
        text_layers=3,
        reads_text=(True, True, False),
        latent_channels=12,
        vae_groups=1,
        vae_starts_linear=True,
        text_length=32,
    ),
}


def random_pipeline(name: str, seed: int) -> StableDiffusionPipeline:
    """Build a pipeline of the named size; the same seed gives the same weights."""
    size = SIZES[name]
    tokenizer = character_tokenizer(size.text_length)
    torch.manual_seed(seed)
    text_encoder = CLIPTextModel(text_config(tokenizer, size.text_width, size.text_layers))
    vae = random_vae(size)
    factor = 2 ** (len(size.vae) - 1)
    unet = UNet2DConditionModel(
        sample_size=size.resolution // factor,
        in_channels=size.latent_channels,
        out_channels=size.latent_channels,
        block_out_channels=list(size.unet),
        down_block_types=["CrossAttnDownBlock2D" if reads else "DownBlock2D" for reads in size.reads_text],
        up_block_types=["CrossAttnUpBlock2D" if reads else "UpBlock2D" for reads in reversed(size.reads_text)],
        layers_per_block=1,
        cross_attention_dim=size.text_width,
        attention_head_dim=4,
        norm_num_groups=16,
    )
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def text_config(tokenizer: CLIPTokenizer, width: int, layers: int) -> CLIPTextConfig:
    """The shape of a text encoder that reads this tokenizer's numbers; its projection is as wide as it is."""
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        projection_dim=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def random_vae(size: Size) -> AutoencoderKL:
    """An autoencoder whose latents are scaled as a trained one's are."""
    vae = AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * len(size.vae),
        up_block_types=["UpDecoderBlock2D"] * len(size.vae),
        block_out_channels=list(size.vae),
        latent_channels=size.latent_channels,
        layers_per_block=1,
        norm_num_groups=size.vae_groups,
        mid_block_add_attention=False,
        sample_size=size.resolution,
    )
    if size.vae_starts_linear:
        _zero_branches(vae)
    _scale_latents(vae)
    return vae


@torch.no_grad()
def _zero_branches(vae: AutoencoderKL) -> None:
    """Have every residual block begin as its shortcut (Goyal et al., arXiv 1706.02677, section 5.1).

    The whole is then nearly linear and passes colours on from the first step; see docs/log.md for what that is worth.
    """
    for block in vae.modules():
        if isinstance(block, ResnetBlock2D):
            block.conv2.weight.zero_()
            block.conv2.bias.zero_()


@torch.no_grad()
def _scale_latents(vae: AutoencoderKL) -> None:
    """Give latents a narrow posterior and about unit variance, as a trained VAE's have.

    Random weights would make the deviation as large as the mean. The variance is measured on
    smooth drawn colours (8 x 8 px noise, enlarged): random weights have no data of their own.
    """
    log_variance = slice(vae.config.latent_channels, None)
    vae.quant_conv.weight[log_variance] = 0
    vae.quant_conv.bias[log_variance] = -10
    side = vae.config.sample_size
    colours = torch.nn.functional.interpolate(torch.rand(16, 3, 8, 8) * 2 - 1, size=side, mode="bilinear")
    latents = vae.encode(colours).latent_dist.mode()
    vae.register_to_config(scaling_factor=round(1 / float(latents.std()), 5))


def character_tokenizer(length: int = 77) -> CLIPTokenizer:
    """CLIP's byte-level tokenizer with no merges: a token a byte, each also as the last of a word; `length` a text."""
    letters = sorted(ByteLevel.alphabet())
    words = letters + [f"{letter}</w>" for letter in letters] + ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={word: index for index, word in enumerate(words)}, merges=[], model_max_length=length)
