"""preprocess: what finished pictures look like."""

from typing import Annotated, Literal

from pydantic import Field

from stages.core.params import Section

Channel = Annotated[int, Field(ge=0, le=255)]


class PreprocessParams(Section):
    resolution: int = Field(
        512, ge=8, le=4096, multiple_of=8, description="px, side of the square; what the base was trained at"
    )
    fit: Literal["center_crop", "pad"] = Field(
        "center_crop", description="center_crop fills the square, pad shows the whole picture"
    )
    background: list[Channel] = Field(
        default=[255, 255, 255], min_length=3, max_length=3, description="RGB, 0 to 255; below transparency and in pads"
    )
    max_upscale: float = Field(2.0, ge=1, description="a picture that would grow by more is left out and counted")
    flip: bool = Field(False, description="add each picture's mirror image, but not where a caption says left or right")
    most_pixels: int = Field(89_478_485, ge=1, description="px; as in inspect")
