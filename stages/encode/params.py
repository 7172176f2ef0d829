"""encode: how latents are computed and stored."""

from typing import Literal

from pydantic import Field

from stages.core.params import Section


class EncodeParams(Section):
    batch_size: int = Field(16, ge=1, description="pictures or captions a forward pass: memory, and the last bits")
    dtype: Literal["float32", "float16"] = Field("float16", description="of what is stored; half the disk")
    tiling: bool = Field(
        False, description="pictures beyond the VAE's own size pass through it in overlapping tiles: less memory"
    )
    range: float = Field(
        100.0, gt=0, description="latents beyond this, after scaling, stop the run: the VAE doesn't fit the pictures"
    )
