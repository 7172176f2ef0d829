"""caption: what writes the captions that are missing."""

from pathlib import Path

from pydantic import Field

from stages.core.params import Section
from stages.core.places import ADVICE, FORM, place_of


class CaptionParams(Section):
    model: str = Field(
        "",
        pattern=f"^(|{FORM})$",
        description=f"an image-to-text model of transformers, such as BLIP, GIT or Florence-2: {ADVICE}; "
        "empty: pictures without captions stay without",
    )
    prompt: str = Field("", description="how the captions begin, or what the model is asked; empty: nothing")
    max_tokens: int = Field(40, ge=1, le=512, description="of a caption")
    batch_size: int = Field(8, ge=1, description="pictures at once")
    most_pixels: int = Field(89_478_485, ge=1, description="px; larger pictures are bombs, and are not described")

    def place(self, imported: Path) -> tuple[str, str | None] | None:
        """Folder or id, and commit; None if none is meant. Raises StageError if the folder is missing."""
        return place_of(self.model, imported, "caption.model") if self.model else None
