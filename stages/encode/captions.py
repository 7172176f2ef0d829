"""The text encoder's embeddings of captions."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import CLIPTokenizer

from stages.core.models import best_device, load_text_encoder, load_tokenizer
from stages.encode.batches import ahead, batches, open_reuse
from stages.encode.params import EncodeParams


class Embeddings:
    """Embeds what isn't known yet and remembers it by the captions' text."""

    def __init__(self, params: EncodeParams, base: Path) -> None:
        self.params = params
        self.dtype = np.dtype(params.dtype)
        self.reuse = open_reuse("text", params, [base / "tokenizer", base / "text_encoder"])
        self.tokenizer: CLIPTokenizer = load_tokenizer(base)
        self.encoder = load_text_encoder(base).to(best_device())

    def count_cut(self, captions: Sequence[str]) -> int:
        """How many are longer than the model reads."""
        return sum(len(ids) > self.tokenizer.model_max_length for ids in self.tokenizer(list(captions)).input_ids)

    @torch.no_grad()
    def encode(self, captions: Sequence[str]) -> Iterator[int]:
        """Embed those that are missing; after each batch, how many it held."""
        items = ((caption, caption, None, caption) for caption in self.reuse.missing(captions))
        for batch in ahead(batches(items, self.params.batch_size, self._tokens)):
            embeddings_BLD = self.encoder(batch.input.to(self.encoder.device)).last_hidden_state.cpu().numpy()
            stored_BLD = embeddings_BLD[: len(batch.names)].astype(self.dtype)
            self.reuse.put({name: value.tobytes() for name, value in zip(batch.names, stored_BLD, strict=True)})
            yield len(batch.names)

    def _tokens(self, captions: Sequence[str]) -> torch.Tensor:
        tokens: torch.Tensor = self.tokenizer(
            list(captions), padding="max_length", truncation=True, return_tensors="pt"
        ).input_ids
        return tokens

    def known(self, captions: Sequence[str]) -> torch.Tensor:
        """Embeddings of encoded captions, (B, L, D), in the stored dtype."""
        known = self.reuse.get(captions)
        shape = (-1, self.encoder.config.hidden_size)
        return torch.from_numpy(
            np.stack([np.frombuffer(known[caption], self.dtype).reshape(shape) for caption in captions])
        )
