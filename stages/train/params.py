"""train: how the denoiser learns."""

from typing import Literal, Self

from pydantic import Field, model_validator

from stages.core.params import Section


class TrainParams(Section):
    method: Literal["full", "vae", "clip"] = Field(
        "full",
        description="what learns: full, every weight of the UNet; vae, the autoencoder, from pixels; "
        "clip, a new tokenizer, text encoder and picture encoder, from nothing",
    )
    steps: int = Field(1000, ge=1, description="optimiser steps")
    batch_size: int = Field(4, ge=1, description="pictures a forward pass")
    accumulation: int = Field(1, ge=1, description="forward passes an optimiser step")
    optimizer: Literal["adamw", "muon"] = Field(
        "adamw", description="muon learns from nothing in half the steps and less (matrices by Muon, the rest by AdamW)"
    )
    learning_rate: float = Field(1e-5, gt=0, le=1, description="of AdamW; Muon's steps are as long at the same rate")
    warmup_steps: int = Field(0, ge=0, description="optimiser steps over which the learning rate rises from 0")
    schedule: Literal["constant", "cosine"] = Field("constant", description="of the learning rate after warm-up")
    weight_decay: float = Field(0.01, ge=0, description="a step, times the learning rate")
    beta1: float = Field(0.9, ge=0, lt=1, description="of AdamW")
    beta2: float = Field(0.999, ge=0, lt=1, description="of AdamW")
    max_grad_norm: float = Field(1.0, gt=0, description="gradients are clipped to this norm")
    ema_decay: float = Field(
        0.9999, ge=0, lt=1, description="of the averaged weights, which are validated, drawn from and saved; 0: none"
    )
    caption_dropout: float = Field(
        0.1, ge=0, le=1, description="share of pictures seen with the empty caption, which guidance needs"
    )
    precision: Literal["no", "bf16", "fp16"] = Field("no", description="of forward passes; bf16 on recent GPUs")
    save_dtype: Literal["float32", "float16", "bfloat16"] = Field("float32", description="of the saved weights")
    seed: int = Field(0, ge=0, description="of order, noise, timesteps, captions")
    log_every: int = Field(10, ge=1, description="steps whose mean loss is one point of the curve")
    validate_every: int = Field(100, ge=1, description="steps between two looks at the validation loss")
    validation_pictures: int = Field(64, ge=1, description="of the held-out ones, the same each time")
    validation_bins: int = Field(10, ge=1, le=100, description="timesteps at which they are looked at")
    preview_every: int = Field(500, ge=0, description="steps between two sets of sample pictures; 0: none")
    preview_prompts: list[str] = Field(default=[], description="what is drawn, with seed 0, 1, ...")
    preview_steps: int = Field(25, ge=1, le=1000, description="sampling steps of the previews")
    preview_guidance: float = Field(5.0, ge=0, description="classifier-free guidance scale of the previews")
    checkpoint_every: int = Field(
        100, ge=1, description="steps between two resumable states; changes no byte of the result"
    )
    kl_weight: float = Field(1e-6, ge=0, description="of method vae: of the divergence from N(0, 1) beside the error")
    vae_part: Literal["whole", "decoder"] = Field(
        "whole", description="of method vae: decoder leaves latents as they are, so that a trained UNet still fits"
    )
    vocabulary: int = Field(2048, ge=514, le=49408, description="of method clip: tokens; 514 is a token a byte")

    @model_validator(mode="after")
    def _optimizer_fits_precision(self) -> Self:
        if self.optimizer == "muon" and self.precision == "fp16":
            raise ValueError("muon takes precision bf16 or no: two optimizers can't share fp16's scaled gradients")
        return self
