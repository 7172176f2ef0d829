"""caption: what writes the captions that are missing."""

import re
from pathlib import Path

from pydantic import Field

from stages.core.errors import StageError
from stages.core.params import Section

MODEL = re.compile(r"|folder:(?P<folder>[\w-][\w.-]*)|hub:(?P<id>[\w.-]+/[\w.-]+)@(?P<commit>[0-9a-f]{40})")


class CaptionParams(Section):
    model: str = Field(
        "",
        pattern=f"^({MODEL.pattern})$".replace("?P<folder>", "?:").replace("?P<id>", "?:").replace("?P<commit>", "?:"),
        description="an image-to-text model of transformers, such as BLIP, GIT or Florence-2: folder:NAME in "
        "models/imported, or hub:OWNER/NAME@COMMIT (of 40 hex digits); empty: pictures without captions stay without",
    )
    prompt: str = Field("", description="how the captions begin, or what the model is asked; empty: nothing")
    max_tokens: int = Field(40, ge=1, le=512, description="of a caption")
    batch_size: int = Field(8, ge=1, description="pictures at once")
    most_pixels: int = Field(89_478_485, ge=1, description="px; larger pictures are bombs, and are not described")

    def place(self, imported: Path) -> tuple[str, str | None] | None:
        """Folder or id, and commit; None if none is meant. Raises StageError if the folder is missing."""
        named = MODEL.fullmatch(self.model)
        if not self.model or not named:
            return None
        if not named["folder"]:
            return named["id"], named["commit"]
        folder = imported / named["folder"]
        if not folder.is_dir():
            raise StageError("caption.model", f"the folder {folder} is missing", "put the model there")
        return str(folder), None
