"""Texts as a pipeline's encoders read them, each once.

Shapes: B texts, L tokens, D text width.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from stages.core.families.family import Family, Text
from stages.core.families.sd import StableDiffusion
from stages.core.families.sd3 import StableDiffusion3
from stages.core.families.sdxl import StableDiffusionXL

Reader = Callable[[Any, str], Text]  # what the denoiser reads of a text, B = 1, by a pipeline's encoders


def family_of_pipeline(pipeline: Any) -> Family:
    """By its parts: there are pipelines of many names."""
    if hasattr(pipeline, "transformer"):
        return StableDiffusion3()
    return StableDiffusionXL() if hasattr(pipeline, "text_encoder_2") else StableDiffusion()


@torch.no_grad()
def plain_text(pipeline: Any, text: str) -> Text:
    """As diffusers' pipeline reads it: what is longer than the encoders read is cut."""
    further = {}
    if isinstance(family_of_pipeline(pipeline), StableDiffusion3):
        further = {"prompt_2": None, "prompt_3": None}
    read = pipeline.encode_prompt(
        prompt=[text], device=pipeline.device, num_images_per_prompt=1, do_classifier_free_guidance=False, **further
    )
    return Text(read[0], read[2] if len(read) > 2 else None)


class Texts:
    """Texts as the denoiser reads them, each read once. Long ones are several pieces of one length."""

    def __init__(self, pipeline: Any, read: Reader) -> None:
        self.pipeline, self.read = pipeline, read
        self.known: dict[str, Text] = {}

    def __getitem__(self, text: str) -> Text:
        if text not in self.known:
            self.known[text] = self.read(self.pipeline, text)
        return self.known[text]

    def negative(self, text: str) -> Text:
        """What guidance leads away from; for Stable Diffusion XL the empty text is zeros."""
        read = self[text]
        if text or not self.pipeline.config.get("force_zeros_for_empty_prompt"):
            return read
        pooled = None if read.pooled is None else torch.zeros_like(read.pooled)
        return Text(torch.zeros_like(read.embeddings), pooled)

    def length(self, *texts: str) -> int:
        """Tokens of the longest, which all are filled up to."""
        return max(self[text].embeddings.shape[1] for text in texts)

    def batch(self, prompts: Sequence[str], negatives: Sequence[str] | None, length: int) -> Text:
        """(B, length, D); with negatives (2B, length, D), they first."""
        rows = [self._filled(self[text], self[""], length) for text in prompts]
        if negatives is not None:
            away = [
                self._filled(self.negative(text), self[""] if text else self.negative(""), length) for text in negatives
            ]
            rows = away + rows
        pooled = [row.pooled for row in rows if row.pooled is not None]
        return Text(torch.cat([row.embeddings for row in rows]), torch.cat(pooled) if pooled else None)

    def _filled(self, text: Text, empty: Text, length: int) -> Text:
        pieces = [text.embeddings]
        pieces += [empty.embeddings] * ((length - text.embeddings.shape[1]) // empty.embeddings.shape[1])
        return Text(torch.cat(pieces, dim=1), text.pooled)
