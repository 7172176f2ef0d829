"""What the denoiser reads of captions while it learns: stored embeddings, or text encoders that learn with it.

Captions are known by number: those of data/latents first, then the prompts that params give instead of them.
"""

from collections.abc import Sequence
from typing import Protocol

import torch

from stages.core.families.family import Text
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
