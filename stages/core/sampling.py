"""Draw pictures: one CPU generator a picture, so that nothing beside a picture changes it."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from PIL import Image, ImageDraw, ImageFont

SCHEDULERS = {
    "ddim": DDIMScheduler,
    "euler": EulerDiscreteScheduler,
    "euler_a": EulerAncestralDiscreteScheduler,
    "dpm++_2m": DPMSolverMultistepScheduler,
    "unipc": UniPCMultistepScheduler,
}


@dataclass(frozen=True)
class Drawing:
    """What to draw: seed names the starting noise, as it does in other programs (torch's CPU generator)."""

    prompt: str
    seed: int


def set_scheduler(pipeline: Any, name: str) -> None:
    """Swap the sampler, keeping the model's own noise schedule and prediction type; a flow keeps its own sampler."""
    if not isinstance(pipeline.scheduler, FlowMatchEulerDiscreteScheduler):
        # A file of another sampler doesn't say so, and DDIM would cut latents, which reach beyond 1.
        clips = {"clip_sample": False} if name == "ddim" else {}
        pipeline.scheduler = SCHEDULERS[name].from_config(pipeline.scheduler.config, **clips)


def side_of(pipeline: Any) -> int:
    """px: what the model was made for."""
    denoiser = pipeline.transformer if hasattr(pipeline, "transformer") else pipeline.unet
    return int(denoiser.config.sample_size * pipeline.vae_scale_factor)


def draw(
    pipeline: Any,
    drawings: list[Drawing],
    steps: int,
    guidance: float,
    negative: str,
    side: int,
    batch_size: int,
    conditions: list[Image.Image] | None = None,
) -> list[Image.Image]:
    """One picture of side x side px for each drawing, in order. Batches save time and change nothing else.

    conditions: what a ControlNet's pipeline follows, one a drawing.
    """
    pictures: list[Image.Image] = []
    pipeline.set_progress_bar_config(disable=True)
    for start in range(0, len(drawings), batch_size):
        batch = drawings[start : start + batch_size]
        followed = {"image": conditions[start : start + batch_size]} if conditions else {}
        pictures += pipeline(
            [drawing.prompt for drawing in batch],
            negative_prompt=[negative] * len(batch) if negative else None,
            num_inference_steps=steps,
            guidance_scale=guidance,
            height=side,
            width=side,
            **followed,
            generator=[torch.Generator("cpu").manual_seed(drawing.seed) for drawing in batch],
        ).images
    return pictures


def contact_sheet(pictures: list[Image.Image], labels: list[str], columns: int, least: int = 128) -> Image.Image:
    """Pictures in rows of `columns`, each under its label; small ones enlarged by whole factors to `least` px."""
    factor = max(1, math.ceil(least / pictures[0].width))
    side, line, gap = pictures[0].width * factor, 18, 6
    font = ImageFont.load_default(12)
    rows = math.ceil(len(pictures) / columns)
    sheet = Image.new("RGB", (columns * (side + gap) + gap, rows * (side + line + gap) + gap), "white")
    pen = ImageDraw.Draw(sheet)
    for number, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        x, y = gap + number % columns * (side + gap), gap + number // columns * (side + line + gap)
        while pen.textlength(label, font) > side and len(label) > 1:
            label = label[:-2] + "…"
        pen.text((x, y), label, fill="black", font=font)
        sheet.paste(picture.resize((side, side), Image.Resampling.NEAREST), (x, y + line))
    return sheet
