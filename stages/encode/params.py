"""encode: how latents are computed and stored."""

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from stages.core.params import Section


class Boomerang(Section):
    share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="of the training pictures, drawn by key, that get a variant by the base; 0: none",
    )
    t: float = Field(
        0.3, gt=0, le=1, description="how far into noise they go; 0.2 to 0.4 changes details, 0.5 to 0.8 who is shown"
    )
    guidance: float = Field(1.0, ge=1, description="classifier-free guidance scale on the way back; 1 is none")
    steps: int = Field(25, ge=1, le=500, description="of the sampler from noise alone; a share t of them is gone")
    least: int = Field(
        7, ge=0, le=64, description="bits of 64 by which the perceptual hash has to differ; below, it is a duplicate"
    )
    most: int = Field(
        20, ge=0, le=64, description="bits by which it may differ; beyond, the caption may no longer be true"
    )
    seed: int = Field(0, ge=0, description="of the draw and the noise")

    @field_validator("most")
    @classmethod
    def _leaves_some(cls, most: int, info: ValidationInfo) -> int:
        if most < info.data.get("least", 0):
            raise ValueError(f"should not be below least, {info.data['least']}")
        return most


class EncodeParams(Section):
    batch_size: int = Field(
        16, ge=1, description="pictures or captions a forward pass, at most: it decides the last bits"
    )
    memory: float = Field(
        10.0,
        gt=0,
        description="GiB that the VAE's forward pass may take: of large pictures fewer than batch_size pass at once, "
        "as docs/decisions/batches.md says",
    )
    dtype: Literal["float32", "float16"] = Field("float16", description="of what is stored; half the disk")
    tiling: bool = Field(
        False, description="pictures beyond the VAE's own size pass through it in overlapping tiles: less memory"
    )
    range: float = Field(
        100.0, gt=0, description="latents beyond this, after scaling, stop the run: the VAE doesn't fit the pictures"
    )
    boomerang: Boomerang = Boomerang()
