"""score: models that judge pictures and captions; all optional."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from stages.core.params import Section
from stages.core.places import ADVICE, FORM, place_of

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]


class Classifier(Section):
    model: str = Field(pattern=f"^({FORM})$", description=f"an image classifier of transformers: {ADVICE}")
    label: str = Field(min_length=1, description="the class whose probability, 0 to 1, is the score")


class ScoreParams(Section):
    clip: str = Field(
        "",
        pattern=f"^(|tiny-sd|{FORM})$",
        description="a CLIP or SigLIP of transformers that says how well captions fit (clean.captions.min_similarity): "
        f"tiny-sd, which comes with the project and knows emoji, {ADVICE}; empty: none",
    )
    classifiers: dict[Name, Classifier] = Field(
        default={},
        description="scores by name, for clean.filters: is it watermarked, unsafe, beautiful? Needs a model for each",
    )
    batch_size: int = Field(16, ge=1, description="pictures at once")
    most_pixels: int = Field(89_478_485, ge=1, description="px; larger pictures are bombs, and get no score")

    def clip_place(self, imported: Path, shipped: Path) -> tuple[str, str | None]:
        """Folder or id, and commit, of `clip`, which isn't empty. Raises StageError."""
        return (str(shipped), None) if self.clip == "tiny-sd" else place_of(self.clip, imported, "score.clip")

    def classifier_places(self, imported: Path) -> dict[str, tuple[str, str | None]]:
        """The same of each classifier, by name. Raises StageError."""
        return {
            name: place_of(classifier.model, imported, f"score.classifiers.{name}.model")
            for name, classifier in self.classifiers.items()
        }
