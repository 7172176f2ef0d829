"""Models of transformers that look at pictures: safetensors only, float32.

What they say of a picture doesn't depend on the pictures beside it: batches are filled up to one size.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel, AutoModelForImageClassification, AutoTokenizer

from stages.core.errors import StageError
from stages.core.files import folder_digest


class Clip:
    """A CLIP or SigLIP: pictures and texts as unit vectors that lie near where they fit.

    knob: the param that names it, for errors. Raises StageError if it can't be opened or is none.
    """

    def __init__(self, knob: str, folder: str, revision: str | None = None) -> None:
        self.model = open_model(knob, AutoModel, folder, revision)
        if not hasattr(self.model, "get_image_features"):
            raise StageError(knob, f"{folder} is a {type(self.model).__name__}", "use a CLIP or SigLIP")
        self._pixels = AutoImageProcessor.from_pretrained(folder, revision=revision)
        self._tokens = AutoTokenizer.from_pretrained(folder, revision=revision)

    @torch.no_grad()
    def pictures(self, pictures: Sequence[Image.Image], batch_size: int) -> torch.Tensor:
        """Of at most `batch_size` pictures, (B, D) float64."""
        pixels = pixels_of(self.model, self._pixels, pictures, batch_size)
        return _unit(self.model.get_image_features(**pixels))[: len(pictures)]

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Of each text by itself, cut to what the model reads, (N, D) float64."""
        most = self.model.config.text_config.max_position_embeddings
        read = []
        for text in texts:
            tokens = self._tokens([text], padding="max_length", max_length=most, truncation=True, return_tensors="pt")
            read.append(_unit(self.model.get_text_features(**tokens.to(self.model.device)))[0])
        return torch.stack(read)


class Classifier:
    """How probable an image classifier finds some of its classes.

    knob: the param that names it; labels_knob: the one that names the classes.
    Raises StageError if it can't be opened or lacks a class.
    """

    def __init__(
        self, knob: str, labels_knob: str, labels: Sequence[str], folder: str, revision: str | None = None
    ) -> None:
        self.model = open_model(knob, AutoModelForImageClassification, folder, revision)
        self._pixels = AutoImageProcessor.from_pretrained(folder, revision=revision)
        known = self.model.config.label2id
        for label in labels:
            if label not in known:
                raise StageError(labels_knob, f"{folder} has no class {label}", f"use {', '.join(known)}")
        self._numbers = [int(known[label]) for label in labels]

    @torch.no_grad()
    def probabilities(self, pictures: Sequence[Image.Image], batch_size: int) -> torch.Tensor:
        """Of at most `batch_size` pictures, (B, labels) float64, 0 to 1."""
        logits = self.model(**pixels_of(self.model, self._pixels, pictures, batch_size)).logits.double().cpu()
        return torch.as_tensor(logits.softmax(-1)[: len(pictures), self._numbers])


def open_model(knob: str, kind: Any, folder: str, revision: str | None = None) -> Any:
    """A model of transformers from safetensors, float32, on the best device for inference."""
    try:
        model = kind.from_pretrained(folder, revision=revision, use_safetensors=True, torch_dtype=torch.float32)
    except (OSError, ValueError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise StageError(knob, f"{folder} can't be opened ({said})", "see the guide") from None
    return model.eval().to("cuda" if torch.cuda.is_available() else "cpu")


def pixels_of(model: Any, processor: Any, pictures: Sequence[Image.Image], batch_size: int) -> Any:
    """The model's input; the last picture fills the batch up, so that every batch is computed in the same way."""
    filled = [picture.convert("RGB") for picture in pictures]
    filled += filled[-1:] * (batch_size - len(filled))
    return processor(images=filled, return_tensors="pt").to(model.device)


def identity_of(folder: str, revision: str | None = None) -> str:
    """What stands for a model's bytes: the commit of a hub id, else the folder's digest."""
    return revision or folder_digest(Path(folder))


def _unit(found: Any) -> torch.Tensor:
    """Unit vectors, (B, D) float64 on the CPU."""
    vectors = found if isinstance(found, torch.Tensor) else found.pooler_output
    return torch.nn.functional.normalize(vectors.double().cpu(), dim=-1)
