"""sample: let one model draw the prompts.

in    one model; data/prompts  further prompts, pictures to begin with or to follow
out   data/samples/<name>      <prompt>-<seed>.png with its settings inside, grid.png, samples.json
"""

from pathlib import Path
from typing import Any

from diffusers import (
    ControlNetModel,
    StableDiffusionControlNetPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLControlNetPipeline,
)
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from stages.core.adapters import FILE, Strength, content_digest, has_adapter
from stages.core.families.known import family_of, load_pipeline
from stages.core.files import file_digest, replacing, write_json
from stages.core.gpus import one_gpu
from stages.core.models import best_device
from stages.core.prompts import read_prompt
from stages.core.sampling import draw
from stages.core.schedulers import sampler_of
from stages.core.sheets import contact_sheet
from stages.core.stage import run_stage
from stages.core.weights import WEIGHTS
from stages.sample.listed import pictures_of
from stages.sample.orders import Order, orders_of
from stages.sample.parameters import Hashes, parameters_text
from stages.sample.params import Picture, SampleParams
from stages.sample.safety import Watch


def main(params: SampleParams, model: Path, prompts: Path, imported: Path, out: Path) -> None:
    """Draw every prompt with every seed, name each picture by the two, and lay all on one sheet."""
    listed = pictures_of(params, prompts)
    place = params.safety_place(imported)
    watch = Watch(params.safety, place) if params.safety and place else None
    pipeline = open_pipeline(model).to(best_device())
    orders = orders_of(params, listed, prompts, pipeline, has_adapter(model))
    for line in missing(listed, model):
        print(line)
    pictures = draw_orders(pipeline, model, orders, params.batch_size)
    flags = [watch.flags(picture) if watch else [] for picture in pictures]
    hashes = hashes_of(model)
    with replacing(out) as folder:
        shown = []
        for picture, order, found in zip(pictures, orders, flags, strict=True):
            information = PngInfo()
            sampler = sampler_of(pipeline.scheduler, order.drawing.scheduler)
            information.add_text("parameters", parameters_text(order.about, sampler, hashes))
            shown.append(watch.shown(picture, found) if watch else picture)
            shown[-1].save(folder / order.file, pnginfo=information)
        columns = max(1, 8 // len(params.seeds)) * len(params.seeds)
        contact_sheet(shown, [order.drawing.prompt for order in orders], columns).save(folder / "grid.png")
        told = [
            {"file": order.file, **order.about, **({"flagged": found} if found else {})}
            for order, found in zip(orders, flags, strict=True)
        ]
        write_json(folder / "samples.json", {"weights_sha256": hashes.model, "pictures": told})
    flagged = f", {sum(map(bool, flags))} flagged" if watch else ""
    print(f"{len(pictures)} pictures{flagged}")


def open_pipeline(model: Path) -> Any:
    """The model, with its ControlNet if it was trained with one."""
    pipeline = load_pipeline(model)
    if not (model / "controlnet").is_dir():
        return pipeline
    network = ControlNetModel.from_pretrained(model / "controlnet", use_safetensors=True, local_files_only=True)
    one = isinstance(pipeline, StableDiffusionPipeline)
    kind = StableDiffusionControlNetPipeline if one else StableDiffusionXLControlNetPipeline
    return kind.from_pipe(pipeline, controlnet=network)


def draw_orders(pipeline: Any, model: Path, orders: list[Order], batch_size: int) -> list[Image.Image]:
    """In order; the weights change once for each strength of the model's LoRA."""
    drawn: dict[str, Image.Image] = {}
    strengths = sorted({order.adapter for order in orders})
    strength = None if strengths == [1.0] else Strength(pipeline, model)
    for value in strengths:
        if strength:
            strength.set(value)
        chosen = [order for order in orders if order.adapter == value]
        pictures = draw(pipeline, [order.drawing for order in chosen], batch_size, read_prompt)
        drawn |= {order.file: picture for order, picture in zip(chosen, pictures, strict=True)}
    return [drawn[order.file] for order in orders]


def missing(listed: list[Picture], model: Path) -> list[str]:
    """What is asked for and this model hasn't got: its pictures show how it draws without."""
    lines = []
    follow = sum(picture.drawn_as == "controlnet" for picture in listed)
    if follow and not (model / "controlnet").is_dir():
        lines.append(f"{model} has no ControlNet: {follow} prompts are drawn without their conditions")
    if any(picture.adapter_strength not in (None, 1) for picture in listed) and not has_adapter(model):
        lines.append(f"{model} has no adapter: adapter_strength changes nothing")
    return lines


def hashes_of(model: Path) -> Hashes:
    """The sha256 of each file of weights that a picture may name."""
    follows = model / "controlnet" / WEIGHTS
    return Hashes(
        model.name,
        file_digest(model / family_of(model).denoiser / WEIGHTS),
        content_digest(model / FILE) if has_adapter(model) else "",
        file_digest(follows) if follows.is_file() else "",
    )


if __name__ == "__main__":
    run_stage(main, one_gpu)
