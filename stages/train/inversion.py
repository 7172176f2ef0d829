"""method textual_inversion: new words, learned as vectors; every weight of the model stays.

Gal et al., arXiv 2208.01618.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from stages.core.errors import StageError
from stages.core.families.family import Encoder, load_encoder, tokenizer_of
from stages.core.families.live import Live
from stages.core.files import write_json
from stages.core.latents import Latents
from stages.core.weights import save_weights
from stages.train.full import as_type, replace_part
from stages.train.learner import Opened
from stages.train.loop import Prepared
from stages.train.params import Word

KIND = {"text_encoder": "clip_l", "text_encoder_2": "clip_g"}  # what files for SDXL and 3 call the encoders


class Widened(torch.nn.Module):
    """A table of words with further rows, which alone learn. vectors: (V, D)."""

    def __init__(self, table: torch.nn.Embedding, vectors: torch.Tensor) -> None:
        super().__init__()
        self.table = table.requires_grad_(False)
        count, width = vectors.shape
        self.vectors = torch.nn.Embedding(count, width, _weight=vectors)  # which muon leaves to AdamW

    @property
    def weight(self) -> torch.Tensor:
        """The whole table."""
        return torch.cat([self.table.weight, self.vectors.weight])

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        """Rows of the old table and of the new one, (..., D)."""
        beyond = numbers - len(self.table.weight)
        old = self.table(numbers.clamp(max=len(self.table.weight) - 1))
        return torch.where(beyond[..., None] < 0, old, self.vectors(beyond.clamp(min=0)))


class Inversion:
    """Each word is so many vectors, in each CLIP text encoder of the model."""

    def __init__(self, opened: Opened, captions: list[str], empty_is_zero: bool) -> None:
        self.opened, self.words = opened, opened.params.words
        self.encoders = [encoder for encoder in opened.encoders() if encoder.name in KIND]
        others = [encoder for encoder in opened.encoders() if encoder.name not in KIND]
        self.tables = {encoder.name: widen(encoder, self.words) for encoder in self.encoders}
        self.model = torch.nn.ModuleDict(self.tables)
        spoken = [speak(caption, self.words) for caption in captions]
        self.texts = Live(opened.denoiser.family, [*self.encoders, *others], spoken, empty_is_zero)
        unused = [word.token for word in self.words if not any(word.token in caption for caption in captions)]
        if unused:
            raise StageError("train.words", f"no caption says {unused[0]}", "name it in captions or in train.prompts")

    @property
    def rates(self) -> list[tuple[torch.nn.Module, float]]:
        return [(self.model, 1.0)]

    def conditions(self, data: Latents, rows: Sequence[int]) -> Prepared:  # noqa: ARG002 - other methods read them
        return {}

    def further(self, prepared: Prepared) -> None:
        """Nothing."""

    def show(self, pipeline: Any, data: Latents, count: int) -> tuple[Any, None]:  # noqa: ARG002 - other methods do
        for encoder in self.encoders:
            setattr(pipeline, encoder.name, encoder.model)
            setattr(pipeline, tokenizer_of(encoder.name), encoder.tokenizer)
        return pipeline, None

    def save(self, weights: dict[str, torch.Tensor], about: dict[str, Any], out: Path) -> None:
        """The words by themselves in `embeddings`, a file each; the base's text encoders with longer tables."""
        (out / "embeddings").mkdir()
        first = 0
        for word in self.words:
            rows = slice(first, first + word.vectors)
            vectors = {encoder.name: weights[f"{encoder.name}.vectors.weight"][rows] for encoder in self.encoders}
            one = len(vectors) == 1
            named = {word.token if one else KIND[name]: value for name, value in vectors.items()}
            save_weights(named, out / "embeddings" / f"{word.token.strip('<>')}.safetensors", about)
            first += word.vectors
        for encoder in self.encoders:
            learned = weights[f"{encoder.name}.vectors.weight"]
            stored = load_encoder(self.opened.denoiser.family, self.opened.base, encoder.name)
            state = {key: as_type(value, learned.dtype) for key, value in stored.state_dict().items()}
            name = next(key for key in state if key.endswith("token_embedding.weight"))
            whole = torch.cat([state[name], learned])
            replace_part(out / encoder.name, "model.safetensors", state | {name: whole}, about)
            config = json.loads((out / encoder.name / "config.json").read_text(encoding="utf-8"))
            write_json(out / encoder.name / "config.json", config | {"vocab_size": len(whole)})
            encoder.tokenizer.save_pretrained(out / tokenizer_of(encoder.name))


def names_of(word: Word) -> list[str]:
    """The tokens of a word's vectors, as diffusers names them: <cat>, <cat>_1, <cat>_2."""
    return [word.token, *(f"{word.token}_{number}" for number in range(1, word.vectors))]


def speak(caption: str, words: Sequence[Word]) -> str:
    """The caption with each word as the row of its tokens."""
    for word in words:
        caption = caption.replace(word.token, " ".join(names_of(word)))
    return caption


def widen(encoder: Encoder, words: Sequence[Word]) -> Widened:
    """Give an encoder the words, each vector beginning as that of the initialiser, and its tokenizer their tokens.

    Raises StageError if a token is a word already, or an initialiser is several tokens.
    """
    table = encoder.model.get_input_embeddings()
    rows = []
    for word in words:
        if encoder.tokenizer.add_tokens(names_of(word)) < word.vectors:
            raise StageError("train.words", f"{word.token} is a word of the tokenizer already", "choose another token")
        numbers = encoder.tokenizer(word.initialiser, add_special_tokens=False).input_ids
        start = table.weight[numbers].mean(dim=0)  # of a word of several tokens, their mean
        rows.append(start.detach().expand(word.vectors, -1))
    widened = Widened(table, torch.cat(rows).clone())
    encoder.model.set_input_embeddings(widened)
    return widened
