"""What each method of training teaches models/tiny-sd within 5 minutes on 2 cores.

    python -m benchmarks.methods [folder] [lora] [dreambooth] [inversion] [controlnet]

All four by default; pictures, sheets and models go to the folder and stay there, or to a temporary one. Data: OpenMoji
through the stages `collect` to `encode` at 64 px, and for DreamBooth and inversion a subject that no emoji set has, a
blue cat with a star on its forehead, drawn by code in six positions, one of them held out. Prints JSON lines, {"name",
"ours", "peer", "ratio", "unit"}, and each training's seconds on stderr:

    LoRA, validation loss   of held-out OpenMoji, the mean over 10 timesteps; peer: the base
    DreamBooth, subject     distance, 1 - cosine of embeddings by the CLIP models/tiny-sd/clip, of drawings of "sks cat
                            face" from the subject's pictures, mean over all pairs; with prior preservation and
                            without; peer: the base's drawings, same seeds
    DreamBooth, class drift the same distance of drawings of "cat face" from the base's, seed by seed; ours: with prior
                            preservation; peer: without
    DreamBooth, class apart the same distance of drawings of "cat face" from the subject's pictures; ours: with prior
                            preservation; peer: without. Above 1: the class keeps apart from the subject
    inversion, subject      as for DreamBooth, of drawings of "<blue-cat>"; peer: the base's of "cat face", which the
                            word began as
    ControlNet, edge F1     of held-out OpenMoji: Canny of drawings against the Canny they had to follow, where an edge
                            counts as found within 1 px, also diagonally; mean of the pictures' F1; peer: the base's
                            drawings of the same prompts and seeds without a condition. Above 1: it follows
    ControlNet, ceiling     ours: the same F1; peer: of the very pictures, once through the autoencoder and back

Ratios are ours / peer; below 1 is learned, but where said. Drawings: COUNT of each, 25 steps of DDIM, guidance 5.
"""

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline
from PIL import Image
from transformers import CLIPModel

from benchmarks.projects import BASE, openmoji, subject_project
from stages.core.conditions import make_condition
from stages.core.families.known import load_pipeline
from stages.core.files import folder_digest
from stages.core.latents import Latents
from stages.core.models import load_vae
from stages.core.objective import open_denoiser, validation_losses
from stages.core.pixels import Pixels, to_images
from stages.core.sampling import Drawing, draw
from stages.core.sheets import contact_sheet
from stages.tools.card import as_pixels

SUBJECT, CLASS, WORD = "sks cat face", "cat face", "<blue-cat>"
DISTANCE = "1 - cosine"
COUNT = 32  # drawings that a figure is the mean of

LORA = {"method": "lora", "steps": 240, "batch_size": 32, "learning_rate": 1e-4, "ema_decay": 0.98}
DREAMBOOTH = {
    "method": "dreambooth",
    "prompts": [SUBJECT],
    "steps": 400,
    "batch_size": 5,
    "learning_rate": 3e-4,
    "ema_decay": 0.95,
    "caption_dropout": 0.0,
}
PRIOR = {"prior": {"prompt": CLASS, "pictures": 100}}
INVERSION = {
    "method": "textual_inversion",
    "prompts": [WORD],
    "words": [{"token": WORD, "initialiser": CLASS, "vectors": 2}],
    "steps": 400,
    "batch_size": 5,
    "learning_rate": 5e-3,
    "weight_decay": 0.0,
    "ema_decay": 0.95,
    "caption_dropout": 0.0,
}
CONTROLNET = {
    "method": "controlnet",
    "steps": 300,
    "batch_size": 32,
    "learning_rate": 1e-3,
    "ema_decay": 0.98,
    "caption_dropout": 0.5,
}


def drawn(model: Path, prompts: Sequence[str], conditions: list[Image.Image] | None = None) -> list[Image.Image]:
    """A picture a prompt, seeds 0, 1, ...; 25 steps of DDIM, guidance 5. conditions: what its ControlNet follows."""
    pipeline = load_pipeline(model)
    if conditions:
        network = ControlNetModel.from_pretrained(model / "controlnet", use_safetensors=True)
        pipeline = StableDiffusionControlNetPipeline.from_pipe(pipeline, controlnet=network)
    shown: Sequence[Image.Image | None] = conditions or [None] * len(prompts)
    drawings = [
        Drawing(prompt, seed, (64, 64), condition=condition)
        for seed, (prompt, condition) in enumerate(zip(prompts, shown, strict=True))
    ]
    return draw(pipeline, drawings, batch_size=16)


@torch.no_grad()
def embedded(pictures: Sequence[Image.Image]) -> torch.Tensor:
    """Unit vectors (B, D) by the miniature's CLIP."""
    clip = CLIPModel.from_pretrained(BASE / "clip", use_safetensors=True, torch_dtype=torch.float32).eval()
    seen = clip.vision_model(pixel_values=as_pixels(list(pictures))).pooler_output
    return torch.nn.functional.normalize(clip.visual_projection(seen), dim=-1)


def distance(pictures: Sequence[Image.Image], subject: torch.Tensor) -> float:
    """1 - cosine, mean over all pairs of pictures and the subject's embeddings."""
    return float(1 - (embedded(pictures) @ subject.T).mean())


def drift(before: Sequence[Image.Image], after: Sequence[Image.Image]) -> float:
    """1 - cosine of pictures of the same seeds, mean."""
    return float(1 - (embedded(before) * embedded(after)).sum(dim=1).mean())


def edge_f1(picture: Image.Image, condition: Image.Image, within: int = 1) -> float:
    """F1 of the picture's Canny edges against a condition's; an edge counts as found within so many px of one."""
    found, wanted = (np.asarray(edges.convert("L")) > 0 for edges in (make_condition("canny", picture), condition))
    near = np.ones((2 * within + 1, 2 * within + 1), dtype=np.uint8)
    wide = [cv2.dilate(edges.astype(np.uint8), near) > 0 for edges in (found, wanted)]
    precision = (found & wide[1]).sum() / max(found.sum(), 1)
    recall = (wanted & wide[0]).sum() / max(wanted.sum(), 1)
    return float(2 * precision * recall / max(precision + recall, 1e-9))


def tell(name: str, ours: float, peer: float, unit: str) -> None:
    """One figure, one line."""
    line = {"name": name, "ours": round(ours, 4), "peer": round(peer, 4), "ratio": round(ours / peer, 3), "unit": unit}
    print(json.dumps(line), flush=True)


def lora(folder: Path) -> None:
    """A style: how well held-out pictures of it are denoised."""
    project = openmoji(folder)
    models = (project.train("lora", LORA), BASE)
    held_out = Latents(project.latents, "validation")
    ours, peer = (float(validation_losses(open_denoiser(model), held_out, 256, 10, 0).mean()) for model in models)
    prompts = ["red apple", "grinning face", "cat face", "automobile", "banana", "green heart", "key", "penguin"]
    contact_sheet(drawn(BASE, prompts) + drawn(models[0], prompts), prompts * 2, 8).save(folder / "lora.png")
    tell("LoRA, validation loss", ours, peer, "mean squared error")


def dreambooth(folder: Path) -> None:
    """A thing by a rare word, and what becomes of its class."""
    project = subject_project(folder / "dreambooth")
    pixels = to_images(Pixels(project.processed, "train").read(range(5)))
    subject = embedded(pixels)
    models = {
        "base": BASE,
        "with prior": project.train("with", DREAMBOOTH | PRIOR),
        "without": project.train("without", DREAMBOOTH),
    }
    named = {name: drawn(model, [SUBJECT] * COUNT) for name, model in models.items()}
    kept = {name: drawn(model, [CLASS] * COUNT) for name, model in models.items()}
    rows = [(f"{name}: {what}", one[name][:8]) for name in models for what, one in (("sks", named), ("class", kept))]
    pictures = [picture for _, row in rows for picture in row]
    labels = [label for label, row in rows for _ in row]
    sheet = contact_sheet([*pixels, *pixels[:3], *pictures], ["subject"] * 8 + labels, 8)
    sheet.save(folder / "dreambooth.png")
    for name in ("with prior", "without"):
        ours, peer = (distance(named[which], subject) for which in (name, "base"))
        tell(f"DreamBooth {name}, subject", ours, peer, DISTANCE)
    preserved, lost = kept["with prior"], kept["without"]
    tell("DreamBooth, class drift", drift(kept["base"], preserved), drift(kept["base"], lost), DISTANCE)
    tell("DreamBooth, class apart", distance(preserved, subject), distance(lost, subject), DISTANCE)


def inversion(folder: Path) -> None:
    """A thing as a word, every weight of the model as it was."""
    project = subject_project(folder / "dreambooth")
    pixels = to_images(Pixels(project.processed, "train").read(range(5)))
    model = project.train("inversion", INVERSION)
    for part in ("unet", "vae"):
        assert folder_digest(model / part) == folder_digest(BASE / part), f"{part} has changed"
    ours, peer = (drawn(one, [prompt] * COUNT) for one, prompt in ((model, WORD), (BASE, CLASS)))
    labels = ["subject"] * 8 + [CLASS] * 8 + [WORD] * 8
    contact_sheet([*pixels, *pixels[:3], *peer[:8], *ours[:8]], labels, 8).save(folder / "inversion.png")
    tell("inversion, subject", distance(ours, embedded(pixels)), distance(peer, embedded(pixels)), DISTANCE)


def controlnet(folder: Path) -> None:
    """Edges that drawings follow."""
    project = openmoji(folder)
    model = project.train("controlnet", CONTROLNET)
    latents, held_out = Latents(project.latents, "validation"), Pixels(project.processed, "validation")
    assert latents.keys == held_out.keys
    rows = range(min(64, len(held_out)))
    conditions = to_images(latents.condition("canny", rows) * 2 - 1)
    pixels, prompts, vae = held_out.read(rows), [held_out.captions[row][0] for row in rows], load_vae(BASE)
    with torch.no_grad():
        back = to_images(vae.decode(vae.encode(pixels).latent_dist.mode()).sample)
    free, follows = drawn(BASE, prompts), drawn(model, prompts, conditions)
    four = [picture for row in zip(to_images(pixels), conditions, follows, free, strict=True) for picture in row]
    labels = [label for prompt in prompts for label in (prompt, "condition", "follows", "unconditioned")]
    contact_sheet(four[:64], labels[:64], 8).save(folder / "controlnet.png")
    f1, alone, ceiling = (
        float(np.mean([edge_f1(picture, edges) for picture, edges in zip(some, conditions, strict=True)]))
        for some in (follows, free, back)
    )
    tell("ControlNet, edge F1", f1, alone, "F1 within 1 px")
    tell("ControlNet, ceiling", f1, ceiling, "F1 within 1 px")


METHODS = {"lora": lora, "dreambooth": dreambooth, "inversion": inversion, "controlnet": controlnet}


def main(arguments: Sequence[str]) -> None:
    """The named methods, or all."""
    chosen = [name for name in arguments if name in METHODS]
    kept = [Path(name) for name in arguments if name not in METHODS]
    with tempfile.TemporaryDirectory() as temporary:
        folder = kept[0] if kept else Path(temporary)
        (folder / ".dvc").mkdir(parents=True, exist_ok=True)
        os.environ["DVC_ROOT"] = str(folder)
        for name in chosen or METHODS:
            METHODS[name](folder)


if __name__ == "__main__":
    main(sys.argv[1:])
