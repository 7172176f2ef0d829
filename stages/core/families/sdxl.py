"""Stable Diffusion XL: two text encoders side by side, a UNet that is told sizes and crops.

Podell et al., arXiv 2307.01952. What is read of each encoder is its last layer but one; pooled is the second one's
projection (section 2.1).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from stages.core.families.family import Encoder, Text


class StableDiffusionXL:
    """See `stages.core.families.family.Family`."""

    name = "Stable Diffusion XL"
    pipeline = StableDiffusionXLPipeline
    denoiser = "unet"
    network = UNet2DConditionModel
    encoders: Mapping[str, Any] = {"text_encoder": CLIPTextModel, "text_encoder_2": CLIPTextModelWithProjection}
    optional: tuple[str, ...] = ()
    targets: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out.0")
    sized = True

    def embed(self, encoders: Sequence[Encoder], tokens: Sequence[torch.Tensor]) -> Text:
        answers = [
            encoder.model(numbers, output_hidden_states=True) for encoder, numbers in zip(encoders, tokens, strict=True)
        ]
        return Text(torch.cat([answer.hidden_states[-2] for answer in answers], dim=2), answers[1].text_embeds)

    def answer(
        self,
        denoiser: Any,
        noised_BCHW: torch.Tensor,
        timesteps_B: torch.Tensor,
        text: Text,
        frames_B6: torch.Tensor,
        **further: Any,
    ) -> torch.Tensor:
        added = {"text_embeds": text.pooled, "time_ids": frames_B6.to(noised_BCHW)}
        answer: torch.Tensor = denoiser(
            noised_BCHW, timesteps_B, encoder_hidden_states=text.embeddings, added_cond_kwargs=added, **further
        ).sample
        return answer

    def text_shape(self, denoiser: Any) -> tuple[int, int]:
        config = denoiser.config
        return config.cross_attention_dim, (
            config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        )
