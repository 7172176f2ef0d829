"""preprocess: what finished pictures look like."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, ValidationInfo, field_validator

from stages.core.params import Section
from stages.preprocess.given import FORM, refuse_missing

Channel = Annotated[int, Field(ge=0, le=255)]
Made = Literal["canny", "soft_edge", "blur", "tile", "palette"]


class Augment(Section):
    rotate: float = Field(0.0, ge=0, le=30, description="degrees at most, to either side; the frame stays filled")
    crop: float = Field(0.0, ge=0, le=0.5, description="share of each side that may be cut away, somewhere")
    jitter: float = Field(
        0.0, ge=0, le=0.5, description="share by which brightness, contrast and saturation may each change; 0.1 is mild"
    )
    variants: int = Field(
        0, ge=0, le=100, description="of each training picture, besides itself and its mirror image, drawn by key"
    )
    seed: int = Field(0, ge=0, description="of the variants' draws")

    @field_validator("variants")
    @classmethod
    def _differ(cls, variants: int, info: ValidationInfo) -> int:
        if variants and not any(info.data.get(name) for name in ("rotate", "crop", "jitter")):
            raise ValueError("variants would all be alike: raise augment.rotate, crop or jitter above 0")
        return variants


class PreprocessParams(Section):
    resolution: int = Field(
        512, ge=8, le=4096, multiple_of=8, description="px, side of the square; what the base was trained at"
    )
    fit: Literal["center_crop", "bucket", "pad"] = Field(
        "center_crop",
        description="center_crop fills the square, bucket a rectangle of about its area, pad shows the whole picture",
    )
    bucket_step: int = Field(64, ge=8, multiple_of=8, description="px of which the sides of buckets are multiples")
    max_bucket_aspect: float = Field(4.0, ge=1, le=16, description="longer over shorter side of the narrowest buckets")
    background: list[Channel] = Field(
        default=[255, 255, 255], min_length=3, max_length=3, description="RGB, 0 to 255; below transparency and in pads"
    )
    max_upscale: float = Field(2.0, ge=1, description="a picture that would grow by more is left out and counted")
    flip: bool | Literal["swap"] = Field(
        False,
        description="add each picture's mirror image, but not where a caption says left or right; swap: there too, "
        "with left and right swapped in the captions",
    )
    augment: Augment = Augment()
    conditions: list[Made | Annotated[str, Field(pattern=FORM)]] = Field(
        default=[],
        description="pictures for a ControlNet to follow: made from the finished one, or folder:NAME, your own in "
        "data/conditions/NAME, a folder a source, matched by name; a picture that lacks one is left out and counted",
    )
    most_pixels: int = Field(89_478_485, ge=1, description="px; as in inspect")

    @field_validator("bucket_step")
    @classmethod
    def _divides(cls, step: int, info: ValidationInfo) -> int:
        side = info.data.get("resolution", 0)
        if info.data.get("fit") == "bucket" and side % step:
            raise ValueError(f"the resolution, {side}, should be a multiple of it")
        return step

    @field_validator("conditions", mode="before")
    @classmethod
    def _known(cls, names: Any) -> Any:
        for name in names if isinstance(names, list) else []:
            if name not in get_args(Made) and not re.match(FORM, str(name)):
                raise ValueError(f"known are {', '.join(get_args(Made))} and folder:NAME, not {name!r}")
        return names

    @field_validator("conditions")
    @classmethod
    def _once(cls, names: list[str]) -> list[str]:
        if len(set(names)) < len(names):
            raise ValueError("each condition should stand once")
        return names

    def verify(self, conditions: Path, sources: Iterable[str]) -> None:
        """What can be known before any work of the folders that are named. Raises StageError."""
        refuse_missing(conditions, self.conditions, sources)
