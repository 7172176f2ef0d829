"""What the denoiser reads of captions while it learns: stored embeddings, or text encoders that learn with it.

Captions are known by number: those of data/latents first, then the prompts that params give instead of them.
"""

from collections.abc import Sequence
from typing import Protocol

import torch

from stages.core.families.family import Encoder, Family, Text
from stages.core.latents import Latents


class Texts(Protocol):
    """Captions by number, in two steps: what can be done ahead on the CPU, and the rest."""

    def prepare(self, numbers: Sequence[int]) -> dict[str, torch.Tensor]:
        """Tensors of the captions with these numbers, first dimension B."""

    def read(self, prepared: dict[str, torch.Tensor]) -> Text:
        """What the denoiser reads of them, on the device where they are."""


class Stored:
    """Embeddings that `encode` made; prompts beyond them are embedded once, here."""

    def __init__(self, latents: Latents, prompts: Text | None = None, known: int = 0) -> None:
        self.latents, self.prompts, self.known = latents, prompts, known

    def prepare(self, numbers: Sequence[int]) -> dict[str, torch.Tensor]:
        texts = [self._one(number) for number in numbers]
        prepared = {"embeddings": torch.cat([text.embeddings for text in texts])}
        pooled = [text.pooled for text in texts if text.pooled is not None]
        return prepared | ({"pooled": torch.cat(pooled)} if pooled else {})

    def _one(self, number: int) -> Text:
        if self.prompts is None or number < self.known:
            return self.latents.text([number])
        place, pooled = number - self.known, self.prompts.pooled
        chosen = slice(place, place + 1)
        return Text(self.prompts.embeddings[chosen], None if pooled is None else pooled[chosen])

    def read(self, prepared: dict[str, torch.Tensor]) -> Text:
        return Text(prepared["embeddings"], prepared.get("pooled"))


class Live:
    """Text encoders at work: their weights, or their words', learn.

    empty_is_zero: the family's guidance leads away from zeros instead of the empty caption's embedding.
    """

    def __init__(self, family: Family, encoders: list[Encoder], captions: list[str], empty_is_zero: bool) -> None:
        self.family, self.encoders, self.captions = family, encoders, captions
        self.empty_is_zero = empty_is_zero

    def prepare(self, numbers: Sequence[int]) -> dict[str, torch.Tensor]:
        captions = [self.captions[number] for number in numbers]
        tokens = self.family.tokens(self.encoders, captions)
        prepared = {f"tokens {encoder.name}": ids for encoder, ids in zip(self.encoders, tokens, strict=True)}
        return prepared | {"empty": torch.tensor([self.empty_is_zero and not caption for caption in captions])}

    def read(self, prepared: dict[str, torch.Tensor]) -> Text:
        text = self.family.embed(self.encoders, [prepared[f"tokens {encoder.name}"] for encoder in self.encoders])
        if not self.empty_is_zero:
            return text
        written = ~prepared["empty"]
        pooled = None if text.pooled is None else text.pooled * written[:, None]
        return Text(text.embeddings * written[:, None, None], pooled)


@torch.no_grad()
def embed(family: Family, encoders: list[Encoder], captions: list[str]) -> Text:
    """What the denoiser reads of captions that are not empty, from encoders that don't learn."""
    return family.embed(encoders, family.tokens(encoders, captions))
