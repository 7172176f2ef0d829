"""Models of transformers that give scores: CLIP for captions, classifiers for pictures."""

from pathlib import Path
from typing import Any, Protocol

import torch
import transformers
from PIL import Image

from stages.core import vision
from stages.core.files import file_digest
from stages.core.vision import Classifier, Clip, identity_of
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
        self._clip = Clip("score.clip", folder, revision)

    def score(self, pictures: list[Image.Image], captions: list[list[str]], batch_size: int) -> list[list[float]]:
        seen = self._clip.pictures(pictures, batch_size)
        values: list[list[float]] = [[] for _ in pictures]
        for owner, listed in enumerate(captions):
            for text in self._clip.texts(listed) if listed else []:
                values[owner].append(round(float(seen[owner] @ text), DIGITS))
        return values


class Probability:
    """How probable a classifier finds one of its classes, 0 to 1."""

    def __init__(self, name: str, label: str, folder: str, revision: str | None) -> None:
        self.name, knob = name, f"score.classifiers.{name}"
        self.made_of = [name, label, *_made_of(knob, folder, revision)]
        self._classifier = Classifier(knob, f"{knob}.label", [label], folder, revision)

    def score(self, pictures: list[Image.Image], captions: list[list[str]], batch_size: int) -> list[float]:  # noqa: ARG002 - a Judge is told them
        found = self._classifier.probabilities(pictures, batch_size)[:, 0]
        return [round(float(value), DIGITS) for value in found]


def judges_of(params: ScoreParams, imported: Path, shipped: Path) -> list[Judge]:
    """Every model that params name, opened. Raises StageError naming the one that can't be."""
    judges: list[Judge] = []
    if params.clip:
        judges.append(Similarity(*params.clip_place(imported, shipped)))
    for name, place in params.classifier_places(imported).items():
        judges.append(Probability(name, params.classifiers[name].label, *place))
    return judges


def _made_of(knob: str, folder: str, revision: str | None) -> list[str]:
    versions = [torch.__version__, transformers.__version__, "cuda" if torch.cuda.is_available() else "cpu"]
    code = [file_digest(Path(file)) for file in (__file__, str(vision.__file__))]
    return [knob, identity_of(folder, revision), *code, *versions]
