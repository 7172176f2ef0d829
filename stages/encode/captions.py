"""What the denoiser reads of captions: each distinct one embedded once by the family's text encoders."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from stages.core.families.family import Text, open_encoders, tokenizer_of
from stages.core.families.known import family_of
from stages.core.models import best_device
from stages.encode.batches import Batch, ahead, batches, open_reuse
from stages.encode.params import EncodeParams


class Embeddings:
    """Embeds what isn't known yet and remembers it by the captions' text."""

    def __init__(self, params: EncodeParams, base: Path) -> None:
        self.params = params
        self.dtype = np.dtype(params.dtype)
        self.family = family_of(base)
        self.encoders = open_encoders(self.family, base)
        self.device = best_device()
        for encoder in self.encoders:
            encoder.model.to(self.device)
        index = json.loads((base / "model_index.json").read_text(encoding="utf-8"))
        # SDXL's guidance leads away from zeros, not from the embedding of the empty caption.
        self.empty_is_zero = bool(index.get("force_zeros_for_empty_prompt"))
        parts = [part for encoder in self.encoders for part in (encoder.name, tokenizer_of(encoder.name))]
        self.reuse = open_reuse("text", params, [base / part for part in parts], str(self.empty_is_zero))
        self.shapes = {name: value.shape[1:] for name, value in self._embed([""]).items()}

    def count_cut(self, captions: Sequence[str]) -> int:
        """How many are longer than the first encoder reads."""
        tokenizer = self.encoders[0].tokenizer
        return sum(len(ids) > tokenizer.model_max_length for ids in tokenizer(list(captions)).input_ids)

    def encode(self, captions: Sequence[str]) -> Iterator[int]:
        """Embed those that are missing; after each batch, how many it held."""
        items = ((caption, caption, None, caption) for caption in self.reuse.missing(captions))
        for batch in ahead(batches(items, self.params.batch_size, list)):
            self.reuse.put(self._encode_batch(batch))
            yield len(batch.names)

    def _encode_batch(self, batch: Batch[list[str]]) -> dict[str, bytes]:
        values = [value.astype(self.dtype) for value in self._embed(batch.input).values()]
        return {name: b"".join(value[place].tobytes() for value in values) for place, name in enumerate(batch.names)}

    @torch.no_grad()
    def _embed(self, captions: Sequence[str]) -> dict[str, np.ndarray]:
        tokens = [numbers.to(self.device) for numbers in self.family.tokens(self.encoders, captions)]
        text: Text = self.family.embed(self.encoders, tokens)
        values = {"embeddings": text.embeddings} | ({} if text.pooled is None else {"pooled": text.pooled})
        zero = [place for place, caption in enumerate(captions) if self.empty_is_zero and not caption]
        for value in values.values():
            value[zero] = 0
        return {name: value.cpu().numpy() for name, value in values.items()}

    def known(self, captions: Sequence[str]) -> dict[str, torch.Tensor]:
        """Embeddings of encoded captions, `embeddings` (B, L, D), `pooled` (B, P) if there is one, as stored."""
        known = self.reuse.get(captions)
        values_BN = np.stack([np.frombuffer(known[caption], self.dtype) for caption in captions])
        sizes = [int(np.prod(shape)) for shape in self.shapes.values()]
        parts = np.split(values_BN, np.cumsum(sizes)[:-1], axis=1)
        return {
            name: torch.from_numpy(part.reshape(-1, *shape)).contiguous()
            for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }
