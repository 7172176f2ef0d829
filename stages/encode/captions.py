"""What the denoiser reads of captions: each distinct one embedded once by the family's text encoders."""

import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import torch

from stages.core.engine import ahead
from stages.core.families.family import Encoder, Text, load_tokenizer, open_encoders, tokenizer_of, tokens_of
from stages.core.families.known import family_of
from stages.core.latents import CAPTIONS_A_SHARD
from stages.core.models import best_device
from stages.core.reuse import Known
from stages.encode.batches import Batch, batches, from_bytes, made_of, open_reuse, this_machine, to_bytes
from stages.encode.memory import within_memory
from stages.encode.params import EncodeParams


class Embeddings:
    """Embeds captions and remembers them by their text. The encoders are opened when there is something to embed."""

    def __init__(self, params: EncodeParams, base: Path, machine: str | None = None) -> None:
        self.params = params
        self.base = base
        self.dtype: torch.dtype = getattr(torch, params.dtype)
        self.family = family_of(base)
        index = json.loads((base / "model_index.json").read_text(encoding="utf-8"))
        # SDXL's guidance leads away from zeros, not from the embedding of the empty caption.
        self.empty_is_zero = bool(index.get("force_zeros_for_empty_prompt"))
        parts = [part for name in self.family.encoders for part in (name, tokenizer_of(name))]
        further = (machine or this_machine(), str(self.empty_is_zero))
        self.made_of = made_of(params, [base / part for part in parts], *further)
        self.reuse: Known = open_reuse("text", self.made_of)

    @cached_property
    def encoders(self) -> list[Encoder]:
        encoders = open_encoders(self.family, self.base)
        for encoder in encoders:
            encoder.model.to(best_device())
        return encoders

    def release(self) -> None:
        """Give the encoders' memory back."""
        self.__dict__.pop("encoders", None)

    def count_cut(self, captions: Sequence[str]) -> int:
        """How many are longer than the first encoder reads."""
        tokenizer = load_tokenizer(self.base, next(iter(self.family.encoders)))
        some = (captions[start : start + CAPTIONS_A_SHARD] for start in range(0, len(captions), CAPTIONS_A_SHARD))
        return sum(len(ids) > tokenizer.model_max_length for each in some for ids in tokenizer(list(each)).input_ids)

    def missing(self, captions: Sequence[str]) -> list[str]:
        """Those that nothing is known of."""
        return self.reuse.missing(captions)

    def encode(self, captions: Sequence[str]) -> Iterator[int]:
        """Embed these; after each batch, how many it held."""
        items = ((caption, caption, None, caption) for caption in captions)
        for batch in ahead(batches(items, lambda _: self.params.batch_size, list)):
            with within_memory(self.params, f"{len(batch.input)} captions"):
                self.reuse.put(self._encode_batch(batch))
            yield len(batch.names)

    @torch.no_grad()
    def _encode_batch(self, batch: Batch[list[str]]) -> dict[str, bytes]:
        tokens = [numbers.to(best_device()) for numbers in tokens_of(self.encoders, batch.input)]
        text: Text = self.family.embed(self.encoders, tokens)
        values = {"embeddings": text.embeddings} | ({} if text.pooled is None else {"pooled": text.pooled})
        zero = [place for place, caption in enumerate(batch.input) if self.empty_is_zero and not caption]
        for value in values.values():
            value[zero] = 0
        return to_bytes(batch.names, {name: value.cpu().to(self.dtype) for name, value in values.items()})

    def known(self, captions: Sequence[str]) -> dict[str, torch.Tensor]:
        """Embeddings of encoded captions, `embeddings` (B, L, D), `pooled` (B, P) if there is one, as stored."""
        return from_bytes(self.reuse.get(set(captions)), captions)
