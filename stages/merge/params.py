"""merge: a table of recipes, each a model of its own."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, RootModel, Tag, field_validator, model_validator

from stages.core.errors import StageError
from stages.core.params import Section

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
Method = Literal[
    "weighted_sum",
    "sigmoid",
    "inverse_sigmoid",
    "average",
    "add_difference",
    "triple_sum",
    "twice_sum",
    "slerp",
    "slerp_deltas",
    "task_arithmetic",
    "ties",
    "dare",
    "dare_ties",
    "della",
    "model_stock",
    "cosine_a",
    "cosine_b",
    "train_difference",
    "smooth_add",
    "lora",
    "extract_lora",
]

# What each method reads beside the knobs that all of them read; formulas and papers are in stages/merge/methods.py.
TAKES: dict[str, set[str]] = {
    "weighted_sum": {"a", "b"},
    "sigmoid": {"a", "b"},
    "inverse_sigmoid": {"a", "b"},
    "average": {"models"},
    "add_difference": {"a", "b", "c"},
    "triple_sum": {"a", "b", "c", "ratio_c"},
    "twice_sum": {"a", "b", "c", "ratio_c"},
    "slerp": {"a", "b"},
    "slerp_deltas": {"a", "b", "c"},
    "task_arithmetic": {"a", "models"},
    "ties": {"a", "models", "density"},
    "dare": {"a", "models", "density", "seed"},
    "dare_ties": {"a", "models", "density", "seed"},
    "della": {"a", "models", "density", "epsilon", "seed"},
    "model_stock": {"a", "models"},
    "cosine_a": {"a", "b"},
    "cosine_b": {"a", "b"},
    "train_difference": {"a", "b", "c"},
    "smooth_add": {"a", "b", "c"},
    "lora": {"a", "loras", "rank"},
    "extract_lora": {"a", "b", "rank"},
}
ALWAYS = {"method", "ratio", "blocks", "components", "vae", "dtype", "single_file", "allow_pickle_import"}
# Methods that take differences from an ancestor, and who has to descend from whom.
DIFFERENCES: dict[str, tuple[tuple[str, str], ...]] = {
    "add_difference": (("b", "c"),),
    "slerp_deltas": (("a", "c"), ("b", "c")),
    "train_difference": (("b", "c"),),
    "smooth_add": (("b", "c"),),
    "extract_lora": (("b", "a"),),
    **dict.fromkeys(("task_arithmetic", "ties", "dare", "dare_ties", "della", "model_stock"), (("models", "a"),)),
}
PLACE = re.compile(r"base|trained|folder:[\w-][\w.-]*|file:[\w-][\w.-]*\.(safetensors|ckpt)")
LORA = re.compile(r"trained|file:[\w-][\w.-]*\.safetensors")


def _place(value: str) -> str:
    if not PLACE.fullmatch(value):
        raise ValueError("it has to be base, trained, folder:NAME, file:NAME.safetensors or a recipe")
    return value


def _kind(value: Any) -> str:
    return "recipe" if isinstance(value, dict | Recipe) else "model"


Source = Annotated[
    Annotated[str, AfterValidator(_place), Tag("model")] | Annotated["Recipe", Tag("recipe")], Discriminator(_kind)
]


class Lora(Section):
    file: str = Field(description="file:NAME.safetensors in models/imported, of PEFT, diffusers or kohya; or trained")
    weight: float = Field(1.0, description="times alpha / rank")

    @field_validator("file")
    @classmethod
    def _known_form(cls, value: str) -> str:
        if not LORA.fullmatch(value):
            raise ValueError("it has to be trained, or file:NAME.safetensors in models/imported")
        return value


class Ingredient(Section):
    model: Source = Field(description="as a")
    weight: float = Field(1.0, description="its share; below 0 takes it away")


class Recipe(Section):
    method: Method = Field("weighted_sum", description="see docs/guide.md")
    a: Source = Field(
        "base",
        description="the first model; for methods with models, the ancestor of them all: base, trained, folder:NAME or "
        "file:NAME.safetensors in models/imported, or a recipe",
    )
    b: Source = Field("trained", description="the second model")
    c: Source = Field("base", description="the third model; for differences, what b was trained from")
    models: list[Ingredient] = Field([], description="any number of models, each with its weight: {model, weight}")
    loras: list[Lora] = Field([], description="what is added to a: {file, weight}")
    ratio: float | None = Field(
        None, ge=-2, le=3, description="share of what is not a: 0 gives a; null: 0.5, or 1 for models and LoRAs"
    )
    ratio_c: float = Field(0.5, ge=-2, le=3, description="share of the third model")
    density: float = Field(0.2, gt=0, le=1, description="share of a difference's numbers that is kept")
    epsilon: float = Field(
        0.1, ge=0, lt=1, description="by how much della's chance to be kept rises and falls with rank"
    )
    seed: int = Field(0, ge=0, description="of what is dropped")
    rank: int = Field(0, ge=0, description="of the LoRA that is made; 0: as many as it takes to be exact")
    blocks: dict[str, float] | list[float] = Field(
        {},
        description="ratios by block: names IN00 to OUT11, M00 and BASE, or a list in that order, with or without BASE",
    )
    components: dict[Literal["unet", "text_encoder", "text_encoder_2", "vae", "transformer"], float] = Field(
        {}, description="ratios by part, where blocks say nothing"
    )
    vae: Source | None = Field(None, description="whose VAE the result has; null: merged like the rest")
    dtype: Literal["", "float32", "float16", "bfloat16"] = Field("", description='of the result; "": as in a')
    single_file: bool = Field(False, description="write the result as one file with original key names too")
    allow_pickle_import: bool = Field(
        False, description="read .ckpt files too: they are pickles, opened for tensors only and rewritten"
    )

    @model_validator(mode="after")
    def _fits_the_method(self) -> "Recipe":
        takes = TAKES[self.method]
        for knob in sorted(self.model_fields_set - ALWAYS - takes):
            raise ValueError(f"the method {self.method} reads no {knob}: it reads {', '.join(sorted(takes))}")
        if "models" in takes and len(self.models) < (2 if self.method == "model_stock" else 1):
            raise ValueError(f"the method {self.method} needs {'two ' if self.method == 'model_stock' else ''}models")
        if self.method == "average" and any(each.weight <= 0 for each in self.models):
            raise ValueError("the method average needs weights above 0")
        if self.method == "lora" and not self.loras:
            raise ValueError("the method lora needs loras")
        if self.method == "della" and not self.epsilon < self.density < 1 - self.epsilon:
            raise ValueError("density less epsilon has to be above 0, density plus epsilon below 1")
        return self

    @property
    def share(self) -> float:
        """The ratio, or what is usual for the method."""
        if self.ratio is not None:
            return self.ratio
        return 1.0 if TAKES[self.method] & {"models", "loras", "rank"} else 0.5

    def parts(self) -> Iterator["str | Recipe"]:
        """The models and recipes whose weights meet in this one, in the order of its keys."""
        takes = TAKES[self.method]
        for role in ("a", "b", "c"):
            if role in takes:
                yield getattr(self, role)
        if "models" in takes:
            yield from (each.model for each in self.models)

    def sources(self) -> Iterator["str | Recipe"]:
        """The models and recipes that this one reads: its parts, and whose VAE it takes."""
        yield from self.parts()
        if self.vae is not None:
            yield self.vae

    def blended(self) -> set[str]:
        """The models whose weights meet, in this recipe or in one inside it."""
        return set().union(*(part.blended() if isinstance(part, Recipe) else {part} for part in self.parts()))

    def places(self) -> Iterator[str]:
        """Every place that this recipe and those inside it name, models before LoRAs."""
        for source in self.sources():
            if isinstance(source, Recipe):
                yield from source.places()
            else:
                yield source
        if "loras" in TAKES[self.method]:
            yield from (lora.file for lora in self.loras)

    def told(self) -> dict[str, Any]:
        """The recipe as it is recorded: the knobs that its method reads, recipes inside it likewise."""
        told: dict[str, Any] = {}
        for knob in sorted((ALWAYS | TAKES[self.method]) & set(type(self).model_fields)):
            value = getattr(self, knob)
            if isinstance(value, Recipe):
                told[knob] = value.told()
            elif knob == "models":
                told[knob] = [
                    {"model": e.model.told() if isinstance(e.model, Recipe) else e.model, "weight": e.weight}
                    for e in value
                ]
            elif knob == "loras":
                told[knob] = [lora.model_dump() for lora in value]
            else:
                told[knob] = self.share if knob == "ratio" else value
        return told


Ingredient.model_rebuild()
Recipe.model_rebuild()


class MergeParams(RootModel[Annotated[dict[Name, Recipe], Field(min_length=1)]]):
    """Recipes by name, one at least; the name is the folder below models/merged. `base` and `trained` are taken."""

    @field_validator("root")
    @classmethod
    def _free_names(cls, root: dict[str, Recipe]) -> dict[str, Recipe]:
        if taken := {"base", "trained"} & root.keys():
            raise ValueError(f"has a recipe named {min(taken)}, which every run makes anyway")
        return root

    def verify(self, imported: Path, learns_words: bool = False) -> None:
        """Raises StageError if a file or folder that a recipe names is missing.

        learns_words: `trained` will know words that no other model knows. Their tables differ in size: raises
        StageError if a recipe blends it with another.
        """
        for name, recipe in self.root.items():
            if learns_words and {"trained"} < recipe.blended():
                what = "blends trained, which will have words of its own, with a model that lacks them"
                raise StageError(f"merge.{name}", what, "take trained alone: {a: trained, b: trained}")
            for place in recipe.places():
                _, _, file = place.partition(":")
                if file and not (imported / file).exists():
                    raise StageError(f"merge.{name}", f"{imported / file} is missing", "put the model there")
