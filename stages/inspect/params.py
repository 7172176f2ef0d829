"""inspect: how pictures are measured."""

from typing import Annotated

from pydantic import Field

from stages.core.params import Section

Channel = Annotated[int, Field(ge=0, le=255)]


class InspectParams(Section):
    background: list[Channel] = Field(
        default=[255, 255, 255], min_length=3, max_length=3, description="RGB, 0 to 255; what transparent pixels show"
    )
    most_pixels: int = Field(
        89_478_485, ge=1, description="px; a larger picture is a bomb (Pillow's own limit: 1 GiB at 3 x 4 bytes)"
    )
