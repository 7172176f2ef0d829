"""Captions through text encoders at work, for what `encode` can't have stored: encoders that learn, or have learned."""

from collections.abc import Sequence

import torch

from stages.core.families.family import Encoder, Family, Text, tokens_of


class Live:
    """Captions by number, read in two steps: what can be done ahead on the CPU, and the rest.

    empty_is_zero: the family's guidance leads away from zeros instead of the empty caption's embedding.
    """

    def __init__(self, family: Family, encoders: list[Encoder], captions: list[str], empty_is_zero: bool) -> None:
        self.family, self.encoders, self.captions = family, encoders, captions
        self.empty_is_zero = empty_is_zero

    def prepare(self, numbers: Sequence[int]) -> dict[str, torch.Tensor]:
        """Token numbers for each encoder, first dimension B."""
        captions = [self.captions[number] for number in numbers]
        tokens = tokens_of(self.encoders, captions)
        prepared = {f"tokens {encoder.name}": ids for encoder, ids in zip(self.encoders, tokens, strict=True)}
        return prepared | {"empty": torch.tensor([self.empty_is_zero and not caption for caption in captions])}

    def read(self, prepared: dict[str, torch.Tensor]) -> Text:
        """What the denoiser reads of them, on the device where they are."""
        text = self.family.embed(self.encoders, [prepared[f"tokens {encoder.name}"] for encoder in self.encoders])
        if not self.empty_is_zero:
            return text
        written = ~prepared["empty"]
        pooled = None if text.pooled is None else text.pooled * written[:, None]
        return Text(text.embeddings * written[:, None, None], pooled)


@torch.no_grad()
def embed(family: Family, encoders: list[Encoder], captions: list[str]) -> Text:
    """What the denoiser reads of captions that are not empty, from encoders that don't learn."""
    return family.embed(encoders, tokens_of(encoders, captions))
