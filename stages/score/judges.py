"""Models of transformers that give scores: CLIP for captions, classifiers for pictures; safetensors only.

A picture's score doesn't depend on the pictures beside it: batches are filled up to one size.
"""

from pathlib import Path
from typing import Any, Protocol

import torch
import transformers
from PIL import Image
from transformers import AutoImageProcessor, AutoModel, AutoModelForImageClassification, AutoTokenizer

from stages.core.errors import StageError
from stages.core.files import file_digest, folder_digest
from stages.score.params import ScoreParams

DIGITS = 6  # of scores


class Judge(Protocol):
    """name: of its column. made_of: what its scores depend on beside picture and captions."""

    name: str
    made_of: list[str]

    def score(self, pictures: list[Image.Image], captions: list[list[str]], batch_size: int) -> list[Any]:
        """A value for each of at most `batch_size` pictures, which have these captions."""


class Similarity:
    """Cosine similarity, -1 to 1, of picture and caption by a CLIP (Radford et al. 2021) or SigLIP: one a caption."""

    name = "similarities"

    def __init__(self, folder: str, revision: str | None) -> None:
        self.made_of = _made_of("score.clip", folder, revision)
        self._model = _opened("score.clip", AutoModel, folder, revision)
        if not hasattr(self._model, "get_image_features"):
            raise StageError("score.clip", f"{folder} is a {type(self._model).__name__}", "use a CLIP or SigLIP")
        self._pixels = AutoImageProcessor.from_pretrained(folder, revision=revision)
        self._tokens = AutoTokenizer.from_pretrained(folder, revision=revision)

    @torch.no_grad()
    def score(self, pictures: list[Image.Image], captions: list[list[str]], batch_size: int) -> list[list[float]]:
        seen = self._features(
            self._model.get_image_features(**_pixels(self._model, self._pixels, pictures, batch_size))
        )
        texts = [caption for listed in captions for caption in listed]
        read = [self._features(self._model.get_text_features(**self._read(text)))[0] for text in texts]
        owners = [number for number, listed in enumerate(captions) for _ in listed]
        values: list[list[float]] = [[] for _ in pictures]
        for owner, text in zip(owners, read, strict=True):
            values[owner].append(round(float(seen[owner] @ text), DIGITS))
        return values

    def _read(self, text: str) -> Any:
        most = self._model.config.text_config.max_position_embeddings
        tokens = self._tokens([text], padding="max_length", max_length=most, truncation=True, return_tensors="pt")
        return tokens.to(self._model.device)

    def _features(self, found: Any) -> torch.Tensor:
        """Unit vectors, (B, D) float64 on the CPU."""
        vectors = found if isinstance(found, torch.Tensor) else found.pooler_output
        return torch.nn.functional.normalize(vectors.double().cpu(), dim=-1)


class Probability:
    """How probable a classifier finds one of its classes, 0 to 1."""

    def __init__(self, name: str, label: str, folder: str, revision: str | None) -> None:
        self.name, knob = name, f"score.classifiers.{name}"
        self.made_of = [name, label, *_made_of(knob, folder, revision)]
        self._model = _opened(knob, AutoModelForImageClassification, folder, revision)
        self._pixels = AutoImageProcessor.from_pretrained(folder, revision=revision)
        labels = self._model.config.label2id
        if label not in labels:
            raise StageError(f"{knob}.label", f"{folder} has no class {label}", f"use {', '.join(labels)}")
        self._label = labels[label]

    @torch.no_grad()
    def score(self, pictures: list[Image.Image], captions: list[list[str]], batch_size: int) -> list[float]:  # noqa: ARG002 - a Judge is told them
        logits = self._model(**_pixels(self._model, self._pixels, pictures, batch_size)).logits.double().cpu()
        found = logits.softmax(-1)[: len(pictures), self._label]
        return [round(float(value), DIGITS) for value in found]


def judges_of(params: ScoreParams, imported: Path, shipped: Path) -> list[Judge]:
    """Every model that params name, opened. Raises StageError naming the one that can't be."""
    judges: list[Judge] = []
    if params.clip:
        judges.append(Similarity(*params.clip_place(imported, shipped)))
    for name, place in params.classifier_places(imported).items():
        judges.append(Probability(name, params.classifiers[name].label, *place))
    return judges


def _opened(knob: str, kind: Any, folder: str, revision: str | None) -> Any:
    try:
        model = kind.from_pretrained(folder, revision=revision, use_safetensors=True, torch_dtype=torch.float32)
    except (OSError, ValueError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise StageError(knob, f"{folder} can't be opened ({said})", "see the guide") from None
    return model.eval().to("cuda" if torch.cuda.is_available() else "cpu")


def _pixels(model: Any, processor: Any, pictures: list[Image.Image], batch_size: int) -> Any:
    """The model's input; the last picture fills the batch up, so that every batch is computed in the same way."""
    filled = [picture.convert("RGB") for picture in pictures]
    filled += filled[-1:] * (batch_size - len(filled))
    return processor(images=filled, return_tensors="pt").to(model.device)


def _made_of(knob: str, folder: str, revision: str | None) -> list[str]:
    versions = [torch.__version__, transformers.__version__, "cuda" if torch.cuda.is_available() else "cpu"]
    return [knob, revision or folder_digest(Path(folder)), file_digest(Path(__file__)), *versions]
