"""What params say of drawing, for the stages that draw: names of samplers, sizes."""

from typing import Annotated, Literal

from pydantic import Field

# Names as AUTOMATIC1111's web UI has them, in small letters; `stages.core.schedulers` has what they mean.
SchedulerName = Literal[
    "ddim",
    "ddpm",
    "pndm",
    "euler",
    "euler_a",
    "heun",
    "dpm2",
    "dpm2_a",
    "dpm++_2m",
    "dpm++_2m_karras",
    "dpm++_2m_sde",
    "dpm++_2m_sde_karras",
    "unipc",
    "lcm",
]

Side = Annotated[int, Field(ge=8, le=8192, multiple_of=8)]
Size = Side | Annotated[list[Side], Field(min_length=2, max_length=2)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Steps = Annotated[int, Field(ge=1, le=1000)]
Guidance = Annotated[float, Field(ge=0, le=50)]


def width_and_height(size: int | list[int] | None, side: int) -> tuple[int, int]:
    """px; one number is both, null the model's own side."""
    if size is None:
        return side, side
    return (size, size) if isinstance(size, int) else (size[0], size[1])
