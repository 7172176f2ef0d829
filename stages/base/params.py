"""base: the model that everything starts from."""

import re

from pydantic import Field, field_validator

from stages.core.params import Section

MODEL = re.compile(r"random:(?P<size>tiny|mini)|folder:(?P<folder>[\w.-]+)|hub:(?P<hub>[\w.-]+/[\w.-]+@[0-9a-f]{40})")


class BaseParams(Section):
    model: str = Field(
        "random:mini",
        description="random:tiny or random:mini (a whole Stable Diffusion in miniature with random weights); "
        "folder:NAME (a diffusers folder in models/imported); hub:OWNER/NAME@COMMIT (of 40 hex digits)",
    )
    seed: int = Field(0, ge=0, description="of random weights")

    @field_validator("model")
    @classmethod
    def _known_form(cls, model: str) -> str:
        if not MODEL.fullmatch(model):
            raise ValueError("it has to be random:tiny, random:mini, folder:NAME or hub:OWNER/NAME@COMMIT")
        return model
