"""Stable Diffusion 3 and 3.5: a transformer, three text encoders, rectified flow (Esser et al., arXiv 2403.03206).

The two CLIP encoders' last layers but one lie side by side, filled up to T5's width, T5's tokens after them; pooled
are both projections (section 4). Without T5 its place is zeros, as the authors' dropout of T5 has it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline
from torch.nn.functional import pad
from transformers import CLIPTextModelWithProjection, T5EncoderModel

from stages.core.families.family import T5, T5_TOKENS, Encoder, Text


class StableDiffusion3:
    """See `stages.core.families.family.Family`."""

    name = "Stable Diffusion 3"
    pipeline = StableDiffusion3Pipeline
    denoiser = "transformer"
    network = SD3Transformer2DModel
    encoders: Mapping[str, Any] = {
        "text_encoder": CLIPTextModelWithProjection,
        "text_encoder_2": CLIPTextModelWithProjection,
        T5: T5EncoderModel,
    }
    optional: tuple[str, ...] = (T5, "tokenizer_3")
    targets: tuple[str, ...] = (
        *("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"),
        *("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out"),
    )
    sized = False

    def embed(self, encoders: Sequence[Encoder], tokens: Sequence[torch.Tensor]) -> Text:
        clips = [
            encoder.model(numbers, output_hidden_states=True)
            for encoder, numbers in zip(encoders[:2], tokens[:2], strict=True)
        ]
        both_BLD = torch.cat([answer.hidden_states[-2] for answer in clips], dim=2)
        pooled_BP = torch.cat([answer.text_embeds for answer in clips], dim=1)
        if len(encoders) < 3:
            # The transformer's text width is T5's; without T5 it can't be known here: `answer` fills up.
            return Text(pad(both_BLD, (0, 0, 0, T5_TOKENS)), pooled_BP)
        t5_BLD = encoders[2].model(tokens[2]).last_hidden_state
        return Text(torch.cat([pad(both_BLD, (0, t5_BLD.shape[2] - both_BLD.shape[2])), t5_BLD], dim=1), pooled_BP)

    def answer(
        self,
        denoiser: Any,
        noised_BCHW: torch.Tensor,
        timesteps_B: torch.Tensor,
        text: Text,
        frames_B6: torch.Tensor,
        **further: Any,
    ) -> torch.Tensor:
        width = denoiser.config.joint_attention_dim
        answer: torch.Tensor = denoiser(
            hidden_states=noised_BCHW,
            timestep=timesteps_B,
            encoder_hidden_states=pad(text.embeddings, (0, width - text.embeddings.shape[2])),
            pooled_projections=text.pooled,
            **further,
        ).sample
        return answer

    def text_shape(self, denoiser: Any) -> tuple[int, int]:
        return denoiser.config.joint_attention_dim, denoiser.config.pooled_projection_dim
