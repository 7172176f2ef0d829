"""sample: what every model draws."""

from typing import Literal

from pydantic import Field

from stages.core.params import Section


class SampleParams(Section):
    prompts: list[str] = Field(default=["a photo"], min_length=1, description="what to draw")
    seeds: list[int] = Field(default=[0, 1], min_length=1, description="each prompt is drawn with each seed")
    negative: str = Field("", description="what guidance leads away from")
    steps: int = Field(25, ge=1, le=1000, description="of the sampler")
    guidance: float = Field(5.0, ge=0, le=50, description="classifier-free guidance scale; 1 is none")
    scheduler: Literal["ddim", "euler", "euler_a", "dpm++_2m", "unipc"] = Field("ddim", description="the sampler")
    side: int | None = Field(None, ge=8, multiple_of=8, description="px; null: what the model was made for")
    batch_size: int = Field(8, ge=1, description="pictures at once; memory and speed only")
