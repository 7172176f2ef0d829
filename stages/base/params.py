"""base: the model that everything starts from."""

import re
from pathlib import Path

from pydantic import Field, field_validator

from stages.core.errors import StageError
from stages.core.params import Section

MODEL = re.compile(r"random:(tiny|mini|small)|folder:(?P<folder>[\w-][\w.-]*)|hub:[\w.-]+/[\w.-]+@[0-9a-f]{40}")


class BaseParams(Section):
    model: str = Field(
        "random:mini",
        description="random:tiny, random:mini or random:small (a whole Stable Diffusion in miniature with "
        "random weights); "
        "folder:NAME (a diffusers folder in models/imported); hub:OWNER/NAME@COMMIT (of 40 hex digits)",
    )
    seed: int = Field(0, ge=0, description="of random weights")

    @field_validator("model")
    @classmethod
    def _known_form(cls, model: str) -> str:
        if not MODEL.fullmatch(model):
            raise ValueError("it has to be random:tiny, :mini or :small, folder:NAME or hub:OWNER/NAME@COMMIT")
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
