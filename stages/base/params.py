"""base: the model that everything starts from."""

import re
from pathlib import Path

from pydantic import Field, field_validator

from stages.core.errors import StageError
from stages.core.params import Section

MODEL = re.compile(r"tiny-sd|random:(tiny|mini|small)|folder:(?P<folder>[\w-][\w.-]*)|hub:[\w.-]+/[\w.-]+@[0-9a-f]{40}")


class BaseParams(Section):
    model: str = Field(
        "tiny-sd",
        description="tiny-sd (models/tiny-sd, a whole Stable Diffusion in miniature, which comes with the project); "
        "folder:NAME (a diffusers folder in models/imported); hub:OWNER/NAME@COMMIT (of 40 hex digits); "
        "random:tiny, random:mini or random:small (miniatures with random weights)",
    )
    seed: int = Field(0, ge=0, description="of random weights")

    @field_validator("model")
    @classmethod
    def _known_form(cls, model: str) -> str:
        if not MODEL.fullmatch(model):
            raise ValueError(
                "it has to be tiny-sd, folder:NAME, hub:OWNER/NAME@COMMIT, or random:tiny, :mini or :small"
            )
        return model

    def folder(self, imported: Path) -> Path | None:
        """The folder that is meant, None if none is. Raises StageError if it is missing."""
        named = MODEL.fullmatch(self.model)
        if not named or not named["folder"]:
            return None
        folder = imported / named["folder"]
        if not folder.is_dir():
            raise StageError("base.model", f"the folder {folder} is missing", "put a diffusers folder there")
        return folder
