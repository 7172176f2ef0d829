"""Stable Diffusion 1.x and 2.x: a UNet that reads a text encoder's last layer (Rombach et al., arXiv 2112.10752)."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextModel

from stages.core.families.family import Encoder, Text


class StableDiffusion:
    """See `stages.core.families.family.Family`."""

    name = "Stable Diffusion 1 or 2"
    pipeline = StableDiffusionPipeline
    denoiser = "unet"
    network = UNet2DConditionModel
    encoders: Mapping[str, Any] = {"text_encoder": CLIPTextModel}
    optional: tuple[str, ...] = ()
    targets: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out.0")
    sized = False

    def embed(self, encoders: Sequence[Encoder], tokens: Sequence[torch.Tensor]) -> Text:
        return Text(encoders[0].model(tokens[0]).last_hidden_state)

    def answer(
        self,
        denoiser: Any,
        noised_BCHW: torch.Tensor,
        timesteps_B: torch.Tensor,
        text: Text,
        frames_B6: torch.Tensor,
        **further: Any,
    ) -> torch.Tensor:
        answer: torch.Tensor = denoiser(
            noised_BCHW, timesteps_B, encoder_hidden_states=text.embeddings, **further
        ).sample
        return answer

    def text_shape(self, denoiser: Any) -> tuple[int, int]:
        return denoiser.config.cross_attention_dim, 0
