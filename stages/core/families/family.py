"""What differs from one family of models to the next: Stable Diffusion 1 and 2, XL, 3. All else knows none of them.

Shapes: B pictures, C latent channels, H x W latent pixels, L tokens, D text width, P width of the pooled text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from diffusers import DiffusionPipeline
from transformers import AutoTokenizer, CLIPTokenizer

from stages.core.models import load_part

T5, T5_TOKENS = "text_encoder_3", 256  # as many as diffusers' pipeline reads by default


@dataclass(frozen=True)
class Text:
    """What a denoiser reads of captions. embeddings: (B, L, D). pooled: (B, P), None where the family has none."""

    embeddings: torch.Tensor
    pooled: torch.Tensor | None = None

    def to(self, device: torch.device) -> "Text":
        return Text(self.embeddings.to(device), None if self.pooled is None else self.pooled.to(device))


@dataclass(frozen=True)
class Encoder:
    """A text encoder with its tokenizer. name: its part of the model's folder."""

    name: str
    tokenizer: Any
    model: Any

    def tokens(self, captions: Sequence[str]) -> torch.Tensor:
        """Token numbers, (B, L) int64, cut or filled up to what the encoder reads."""
        numbers: torch.Tensor = self.tokenizer(
            list(captions),
            padding="max_length",
            max_length=T5_TOKENS if self.name == T5 else self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        ).input_ids
        return numbers


class Family(Protocol):
    """One family. Its functions keep no state: models are handed in.

    name: for people. pipeline: the class in model_index.json. denoiser: its part of the folder; network: its class.
    encoders: each part with a text encoder, and its class; a tokenizer lies beside each. optional: parts that a model
    may lack. targets: the denoiser's linear layers that an adapter changes by default, by the ends of their names.
    sized: whether the denoiser is told the pictures' sizes and crops.
    """

    name: str
    pipeline: type[DiffusionPipeline]
    denoiser: str
    network: Any
    encoders: Mapping[str, Any]
    optional: tuple[str, ...]
    targets: tuple[str, ...]
    sized: bool

    def embed(self, encoders: Sequence[Encoder], tokens: Sequence[torch.Tensor]) -> Text:
        """What the denoiser reads of captions, from the token numbers (B, L) of each encoder."""

    def answer(
        self,
        denoiser: Any,
        noised_BCHW: torch.Tensor,
        timesteps_B: torch.Tensor,
        text: Text,
        frames_B6: torch.Tensor,
        **further: Any,
    ) -> torch.Tensor:
        """The denoiser's answer, (B, C, H, W).

        frames_B6: of each picture the original height and width, the crop's top and left, height and width, in px.
        further: for the denoiser's own call.
        """

    def text_shape(self, denoiser: Any) -> tuple[int, int]:
        """D, and P or 0, that the denoiser was made for."""


def load_denoiser(family: Family, model: Path) -> Any:
    """The denoiser, float32, on the CPU."""
    return load_part(family.network, model, family.denoiser)


def load_encoder(family: Family, model: Path, name: str) -> Any:
    """The text encoder `name`, float32, for inference."""
    return load_part(family.encoders[name], model, name).eval().requires_grad_(False)


def load_tokenizer(model: Path, encoder: str) -> Any:
    """The tokenizer beside a text encoder."""
    return load_part(AutoTokenizer if encoder == T5 else CLIPTokenizer, model, tokenizer_of(encoder), weights=False)


def open_encoders(family: Family, model: Path) -> list[Encoder]:
    """The model's text encoders in the family's order."""
    names = [name for name in family.encoders if (model / name).is_dir()]
    return [Encoder(name, load_tokenizer(model, name), load_encoder(family, model, name)) for name in names]


def tokens_of(encoders: Sequence[Encoder], captions: Sequence[str]) -> list[torch.Tensor]:
    """Token numbers for each encoder, as `embed` takes them."""
    return [encoder.tokens(captions) for encoder in encoders]


def tokenizer_of(encoder: str) -> str:
    """The part with the tokenizer of a text encoder's part."""
    return encoder.replace("text_encoder", "tokenizer")


def parts_of(family: Family) -> list[str]:
    """Every part that a model's folder may hold."""
    texts = [part for name in family.encoders for part in (name, tokenizer_of(name))]
    return [family.denoiser, "vae", *texts, "scheduler"]
