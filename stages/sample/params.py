"""sample: what every model draws."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from stages.core.errors import StageError
from stages.core.params import Section
from stages.core.settings import Guidance, SchedulerName, Seed, Size, Steps

Mode = Literal["text", "image", "inpaint", "boomerang", "controlnet"]
MADE = ("canny", "soft_edge", "blur", "tile", "palette")  # conditions that are made of a picture
LEVELS: dict[str, float] = {"image": 0.75, "inpaint": 1.0, "boomerang": 0.3}  # the strengths that modes begin with

File = Annotated[str, Field(pattern=r"^[\w-][\w .-]*(/[\w-][\w .-]*)*$")]


class Picture(Section):
    """One prompt, and what is other than in the rest of the section. null: as there."""

    prompt: str = Field("", description="what to draw; weights as (red apple)1.3, apple++ or (red apple:1.3)")
    seed: Seed | None = Field(None, description="short for seeds: [seed]")
    seeds: list[Seed] | None = Field(None, min_length=1, description="drawn once with each")
    negative: str | None = Field(None, description="what guidance leads away from")
    steps: Steps | None = Field(None, description="of the sampler")
    guidance: Guidance | None = Field(None, description="classifier-free guidance scale; 1 is none")
    scheduler: SchedulerName | None = Field(None, description="the sampler")
    size: Size | None = Field(None, description="px: a side, or [width, height]")
    mode: Mode | None = Field(
        None, description="null: inpaint if there is a mask, controlnet with a condition, image with an image"
    )
    image: File | None = Field(None, description="a picture in data/prompts to begin with, or to make the condition of")
    mask: File | None = Field(None, description="a picture in data/prompts; what is white is drawn anew")
    condition: File | None = Field(
        None, description=f"what a ControlNet follows: a picture in data/prompts, or {', '.join(MADE)} of the image"
    )
    strength: float | None = Field(
        None,
        gt=0,
        le=1,
        description="how far into noise the image goes; null: 0.75, for inpaint 1, for boomerang 0.3",
    )
    control_strength: float = Field(1.0, ge=0, le=2, description="how strongly a ControlNet's condition is followed")
    adapter_strength: float | None = Field(
        None, ge=-2, le=3, description="of a LoRA that the model was trained with; its weights have it at 1"
    )

    @property
    def drawn_as(self) -> Mode:
        """The mode, said or not."""
        if self.mode:
            return self.mode
        return "inpaint" if self.mask else "controlnet" if self.condition else "image" if self.image else "text"

    @property
    def files(self) -> list[str]:
        """The pictures that it needs from data/prompts."""
        condition = None if self.condition in MADE else self.condition
        return [name for name in (self.image, self.mask, condition) if name]

    @model_validator(mode="after")
    def _fits_its_mode(self) -> "Picture":
        mode = self.drawn_as
        needs = {"image": ["image"], "inpaint": ["image", "mask"], "boomerang": ["image"], "controlnet": ["condition"]}
        takes = {"controlnet": ["image"]}
        for name in ("image", "mask", "condition"):
            given, needed = getattr(self, name) is not None, name in needs.get(mode, [])
            if needed and not given:
                raise ValueError(f"should name its {name}: mode {mode} has none without")
            if given and not needed and name not in takes.get(mode, []):
                raise ValueError(f"should name no {name}: mode {mode} has no use for it")
        if self.strength is not None and mode not in LEVELS:
            raise ValueError(f"should have no strength: mode {mode} begins with noise")
        if self.condition in MADE and not self.image:
            raise ValueError(f"should name an image, of which the condition {self.condition} is made")
        if self.seed is not None and self.seeds is not None:
            raise ValueError("should have seed or seeds, not both")
        return self

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: list[int] | None) -> list[int] | None:
        return distinct(seeds) if seeds else seeds


def distinct(seeds: list[int]) -> list[int]:
    """Raises ValueError for a seed that stands twice: one picture would be drawn twice."""
    if len(set(seeds)) < len(seeds):
        raise ValueError("should name every seed once")
    return seeds


def _from_text(value: object) -> object:
    return {"prompt": value} if isinstance(value, str) else value


Entry = Annotated[Picture, BeforeValidator(_from_text, json_schema_input_type=str | Picture)]


class Safety(Section):
    model: str = Field(
        pattern=r"^folder:[\w-][\w.-]*$", description="a transformers image classifier: folder:NAME in models/imported"
    )
    labels: list[str] = Field(min_length=1, description="its classes that are to be flagged")
    threshold: float = Field(0.5, gt=0, lt=1, description="the probability from which on a picture is flagged")
    action: Literal["record", "blur"] = Field("record", description="name the labels in samples.json; blur as well")


class SampleParams(Section):
    prompts: list[Entry] = Field(
        default=["a photo"],  # type: ignore[list-item]  # texts become pictures when they are read
        description="what to draw: texts, or {prompt: ..., guidance: 3, ...} with what is other than below",
    )
    file: str = Field(
        "",
        pattern=r"^([\w-][\w.-]*\.(jsonl|txt))?$",
        description="more of them, in data/prompts: NAME.jsonl, an entry of prompts a line, or NAME.txt, a text a line",
    )
    seeds: list[Seed] = Field(default=[0, 1], min_length=1, description="each prompt is drawn with each seed")
    negative: str = Field("", description="what guidance leads away from")
    steps: Steps = Field(25, description="of the sampler")
    guidance: Guidance = Field(5.0, description="classifier-free guidance scale; 1 is none")
    scheduler: SchedulerName = Field("ddim", description="the sampler")
    size: Size | None = Field(None, description="px: a side, or [width, height]; null: what the model was made for")
    batch_size: int = Field(8, ge=1, description="pictures at once; memory and speed only")
    safety: Safety | None = Field(None, description="what looks at the pictures; null: nothing")

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: list[int]) -> list[int]:
        return distinct(seeds)

    @field_validator("file")
    @classmethod
    def _something(cls, file: str, info: object) -> str:
        if not file and not getattr(info, "data", {}).get("prompts", True):
            raise ValueError("should be named where prompts are empty")
        return file

    def safety_place(self, imported: Path) -> Path | None:
        """The classifier's folder. Raises StageError if it is missing."""
        if self.safety is None:
            return None
        folder = imported / self.safety.model.partition(":")[2]
        if not folder.is_dir():
            raise StageError("sample.safety.model", f"the folder {folder} is missing", "put the model there")
        return folder
