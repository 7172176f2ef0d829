"""From what params say to what is drawn: every picture with all of its settings."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from stages.core.conditions import make_condition
from stages.core.errors import StageError
from stages.core.pictures import Colour, decode
from stages.core.sampling import Drawing, Start, fitted, side_of
from stages.core.settings import width_and_height
from stages.sample.params import LEVELS, MADE, Picture, SampleParams

MOST_PIXELS = 200_000_000
WHITE, BLACK = (255, 255, 255), (0, 0, 0)


@dataclass(frozen=True)
class Order:
    """A picture to draw. file: its name. mode: how it is drawn by this model, which may be simpler than what was asked.

    about: what samples.json says of it. adapter: the strength of the model's LoRA.
    """

    file: str
    drawing: Drawing
    mode: str
    about: dict[str, Any]
    adapter: float = 1.0


def orders_of(params: SampleParams, pictures: list[Picture], folder: Path, pipeline: Any, adapted: bool) -> list[Order]:
    """Each prompt with each of its seeds. adapted: whether the model has a LoRA of its own.

    Raises StageError for a picture that can't be opened, and for a size that the model can't draw.
    """
    opened = Opened(folder)
    side, step = side_of(pipeline), pipeline.vae_scale_factor * getattr(pipeline, "patch_size", 1)
    follows, flow = hasattr(pipeline, "controlnet"), type(pipeline.scheduler).__name__.startswith("FlowMatch")
    orders = []
    for number, picture in enumerate(pictures):
        mode = "text" if picture.drawn_as == "controlnet" and not follows else picture.drawn_as
        size = width_and_height(_or(picture.size, params.size), side)
        if any(edge % step for edge in size):
            what = f"{size[0]} x {size[1]} px can't be drawn by this model"
            raise StageError("sample", what, f"use multiples of {step}")
        scheduler = _or(picture.scheduler, params.scheduler)
        settings = {
            "prompt": picture.prompt,
            "negative": _or(picture.negative, params.negative),
            "steps": _or(picture.steps, params.steps),
            "guidance": float(_or(picture.guidance, params.guidance)),
            "scheduler": "euler" if flow and scheduler == "ddim" else scheduler,
        }
        given, about = opened.given(picture, mode, size)
        adapter = picture.adapter_strength if adapted and picture.adapter_strength is not None else 1.0
        if adapter != 1.0:
            about["adapter_strength"] = adapter
        seeds = [picture.seed] if picture.seed is not None else picture.seeds or params.seeds
        for seed in seeds:
            told = {**settings, **about, "mode": mode, "seed": seed, "width": size[0], "height": size[1]}
            drawing = Drawing(seed=seed, size=size, **settings, **given)
            orders.append(Order(f"{number:03d}-{seed}.png", drawing, mode, told, adapter))
    return orders


class Opened:
    """Pictures of data/prompts, each opened once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.known: dict[tuple[str, Colour], Image.Image] = {}

    def given(self, picture: Picture, mode: str, size: tuple[int, int]) -> tuple[dict[str, Any], dict[str, Any]]:
        """What a Drawing takes of pictures, and what samples.json says of them."""
        if mode == "text" or picture.drawn_as == "text":
            return {}, {}
        if mode == "controlnet":
            made = picture.condition in MADE
            shown = self._open(str(picture.image if made else picture.condition))
            condition = make_condition(str(picture.condition), fitted(shown, size)) if made else shown
            about = {"condition": picture.condition, "control_strength": picture.control_strength}
            if made:
                about["image"] = picture.image
            return {"condition": condition, "control": picture.control_strength}, about
        level = LEVELS[mode] if picture.strength is None else picture.strength
        mask = self._open(picture.mask, BLACK).convert("L") if picture.mask else None
        about = {"image": picture.image, "strength": level} | ({"mask": picture.mask} if picture.mask else {})
        return {"start": Start(self._open(str(picture.image)), level, mask)}, about

    def _open(self, name: str, background: Colour = WHITE) -> Image.Image:
        """Upright, sRGB, over the background where it is transparent."""
        if (name, background) not in self.known:
            decoded = decode((self.folder / name).read_bytes(), background, MOST_PIXELS)
            if decoded.image is None:
                raise StageError(str(self.folder / name), f"can't be opened ({decoded.code})", "save it as PNG")
            self.known[name, background] = decoded.image
        return self.known[name, background]


def _or(own: Any, general: Any) -> Any:
    return general if own is None else own
