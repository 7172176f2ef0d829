"""merge: a table of recipes, each a model of its own."""

from typing import Annotated, Literal

from pydantic import Field, RootModel, field_validator

from stages.core.params import Section

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]


class Recipe(Section):
    method: Literal["weighted_sum"] = Field("weighted_sum", description="(1 - ratio) A + ratio B")
    a: Literal["base", "trained"] = Field("base", description="the first model")
    b: Literal["base", "trained"] = Field("trained", description="the second model")
    ratio: float = Field(0.5, ge=0, le=1, description="share of the second model: 0 gives A, 1 gives B")


class MergeParams(RootModel[Annotated[dict[Name, Recipe], Field(min_length=1)]]):
    """Recipes by name, one at least; the name is the folder below models/merged. `base` and `trained` are taken."""

    @field_validator("root")
    @classmethod
    def _free_names(cls, root: dict[str, Recipe]) -> dict[str, Recipe]:
        if taken := {"base", "trained"} & root.keys():
            raise ValueError(f"has a recipe named {min(taken)}, which every run makes anyway")
        return root
