"""base: the model that everything starts from."""

import re
from pathlib import Path

from pydantic import Field, field_validator

from stages.core.params import Section
from stages.core.places import ADVICE, FORM, place_of

MODEL = re.compile(rf"tiny-sd|random:(?:tiny|mini|small|tiny-sdxl|tiny-sd3)|{FORM}")


class BaseParams(Section):
    model: str = Field(
        "tiny-sd",
        description="tiny-sd (models/tiny-sd, a whole Stable Diffusion in miniature, which comes with the project); "
        f"a diffusers folder: {ADVICE}; "
        "random:tiny, random:mini, random:small, random:tiny-sdxl or random:tiny-sd3 (miniatures with random weights)",
    )
    seed: int = Field(0, ge=0, description="of random weights")

    @field_validator("model")
    @classmethod
    def _known_form(cls, model: str) -> str:
        if not MODEL.fullmatch(model):
            raise ValueError(
                "it has to be tiny-sd, folder:NAME, hub:OWNER/NAME@COMMIT, or random: with "
                "tiny, mini, small, tiny-sdxl or tiny-sd3"
            )
        return model

    def place(self, imported: Path) -> tuple[str, str | None] | None:
        """Folder or id, and commit; None for a model that the project makes or ships. Raises StageError."""
        made_here = self.model == "tiny-sd" or self.model.startswith("random:")
        return None if made_here else place_of(self.model, imported, "base.model")
