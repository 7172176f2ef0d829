"""grid: sheets of pictures over two settings."""

from collections.abc import Collection, Iterable
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, RootModel, TypeAdapter, ValidationError, field_validator, model_validator

from stages.core.errors import StageError
from stages.core.params import Section
from stages.core.settings import Guidance, SchedulerName, Seed, Size, Steps

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
VALUES: dict[str, TypeAdapter[Any]] = {
    "steps": TypeAdapter(list[Steps]),
    "guidance": TypeAdapter(list[Guidance]),
    "scheduler": TypeAdapter(list[SchedulerName]),
    "ratio": TypeAdapter(list[Annotated[float, Field(ge=-1, le=2)]]),
    "strength": TypeAdapter(list[Annotated[float, Field(ge=-2, le=3)]]),
}
WORDS = {
    "steps": "whole numbers from 1 to 1000",
    "guidance": "numbers from 0 to 50",
    "scheduler": f"of {', '.join(get_args(SchedulerName))}",
    "ratio": "numbers from -1 to 2",
    "strength": "numbers from -2 to 3",
}


class Axis(Section):
    name: Literal["steps", "guidance", "scheduler", "ratio", "strength"] = Field(
        description="ratio: of the model in a weighted sum with the base; strength: of the model's LoRA"
    )
    values: list[int | float | str] = Field(min_length=1, max_length=16, description="a column or row each, in order")

    @field_validator("values")
    @classmethod
    def _of_their_kind(cls, values: list[int | float | str], info: Any) -> list[int | float | str]:
        name = info.data.get("name")
        if name is None:
            return values
        try:
            VALUES[name].validate_python(values, strict=True)
        except ValidationError:
            raise ValueError(f"should be {WORDS[name]}, as the axis {name} has them") from None
        if len(set(values)) < len(values):
            raise ValueError("should be different from each other")
        return values


class Grid(Section):
    model: str = Field("trained", description="base, trained or a recipe of the section merge")
    prompt: str = Field(description="what to draw, as in sample.prompts")
    negative: str = Field("", description="what guidance leads away from")
    seed: Seed = Field(0, description="of every picture")
    steps: Steps = Field(25, description="of the sampler")
    guidance: Guidance = Field(5.0, description="classifier-free guidance scale; 1 is none")
    scheduler: SchedulerName = Field("ddim", description="the sampler")
    size: Size | None = Field(None, description="px: a side, or [width, height]; null: what the model was made for")
    x: Axis = Field(description="across")
    y: Axis = Field(description="down")

    @model_validator(mode="after")
    def _of_two(self) -> "Grid":
        if self.x.name == self.y.name:
            raise ValueError(f"should have two axes: x and y are both {self.x.name}")
        return self


class GridParams(RootModel[dict[Name, Grid]]):
    """Grids by name; the name is the file below data/grids."""

    def verify(self, models: Iterable[str], adapted: Collection[str]) -> None:
        """Raises StageError if a grid is of a model that no run makes, or of a LoRA's strength and the model has none.

        adapted: the models that have one.
        """
        known = list(models)
        for name, grid in self.root.items():
            if grid.model not in known:
                raise StageError(f"grid.{name}.model", f"no model is named {grid.model}", f"use {', '.join(known)}")
            if "strength" in (grid.x.name, grid.y.name) and grid.model not in adapted:
                what = f"{grid.model} will have no LoRA whose strength could be set"
                raise StageError(f"grid.{name}", what, "use model trained and train.method lora, without dora")
