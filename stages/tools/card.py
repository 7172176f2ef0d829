"""The figures and pictures of a miniature's model card.

python -m stages.tools.card MODEL PROCESSED OTHER OUT

PROCESSED is the data/processed that MODEL was trained on, OTHER that of a style it has never seen. OUT has a
prompts.yaml; draws reconstructions.png, samples.png and combinations.png beside it, prints a JSON line a figure.
"""

import json
import math
import sys
from pathlib import Path

import numpy as np
import torch
import yaml
from diffusers import StableDiffusionPipeline
from PIL import Image
from transformers import CLIPModel, CLIPTokenizer

from stages.core.families.known import load_pipeline
from stages.core.models import load_vae
from stages.core.noise import permutation
from stages.core.pixels import Pixels, to_images
from stages.core.sampling import Drawing, draw, side_of
from stages.core.sheets import contact_sheet

AMONG = 100
STYLES = ["noto style", "fluent style"]


def main(model: Path, processed: Path, other: Path, out: Path) -> None:
    """Draw and print."""
    pipeline = load_pipeline(model)
    clip = CLIPModel.from_pretrained(model / "clip", use_safetensors=True, torch_dtype=torch.float32).eval()
    train, held_out = Pixels(processed, "train"), Pixels(processed, "validation")
    reconstruct(model, held_out, out / "reconstructions.png")

    prompts = yaml.safe_load((out / "prompts.yaml").read_text(encoding="utf-8"))
    known = [f"{prompt}, {STYLES[number % 2]}" for number, prompt in enumerate(prompts["known"])]
    contact_sheet(drawn(pipeline, known, 5.0), known, columns=8).save(out / "samples.png")
    new = [f"{prompt}, {style}" for prompt in prompts["new"] for style in STYLES]
    contact_sheet(drawn(pipeline, new, 5.0), new, columns=8).save(out / "combinations.png")

    firsts = list(dict.fromkeys(captions[0] for captions in train.captions if captions))
    chosen = [firsts[number] for number in permutation(len(firsts), 0, "card")[:AMONG].tolist()]
    rows = [next(row for row, listed in enumerate(train.captions) if listed[:1] == [caption]) for caption in chosen]
    tell("training pictures: right caption among 100", found(clip, pipeline.tokenizer, train.read(rows), chosen))
    for guidance in (3.0, 5.0, 7.0):
        pixels = as_pixels(drawn(pipeline, chosen, guidance))
        tell(f"drawn at guidance {guidance}: right caption among 100", found(clip, pipeline.tokenizer, pixels, chosen))

    unseen = Pixels(other, "train")
    rows = permutation(len(unseen), 0, "card")[:AMONG].tolist()
    captions = [unseen.captions[row][0] for row in rows]
    scores = cosines(clip, pipeline.tokenizer, unseen.read(rows), captions)
    tell("unseen style: right picture among 100 for a caption", share(scores.T.argmax(dim=1)))


def tell(name: str, value: float) -> None:
    """One figure, one line."""
    print(json.dumps({"name": name, "value": round(value, 4)}), flush=True)


@torch.no_grad()
def reconstruct(model: Path, held_out: Pixels, sheet: Path) -> None:
    """PSNR of all held-out pictures; some of them beside what comes back."""
    vae, errors = load_vae(model), []
    for start in range(0, len(held_out), 64):
        pixels = held_out.read(range(start, min(start + 64, len(held_out))))
        back = vae.decode(vae.encode(pixels).latent_dist.mode()).sample.clamp(-1, 1)
        errors.append((back - pixels).square().mean(dim=(1, 2, 3)))
        if start == 0:
            pairs = [image for pair in zip(to_images(pixels[:32]), to_images(back[:32]), strict=True) for image in pair]
            labels = [label for captions in held_out.captions[:32] for label in (captions[-1], "back")]
            contact_sheet(pairs, labels, columns=8).save(sheet)
    error = torch.cat(errors)
    tell(f"PSNR of {len(error)} held-out pictures, dB", 10 * math.log10(4 / float(error.mean())))
    tell("the same, mean of each picture's, dB", float((10 * (4 / error).log10()).mean()))


def drawn(pipeline: StableDiffusionPipeline, prompts: list[str], guidance: float) -> list[Image.Image]:
    """One picture a prompt, 25 steps of DDIM."""
    size = (side_of(pipeline), side_of(pipeline))
    drawings = [Drawing(prompt, seed, size, guidance=guidance) for seed, prompt in enumerate(prompts)]
    return draw(pipeline, drawings, batch_size=16)


def as_pixels(pictures: list[Image.Image]) -> torch.Tensor:
    """(B, 3, H, W) from -1 to 1."""
    return torch.from_numpy(np.stack([np.asarray(image) for image in pictures])).permute(0, 3, 1, 2) / 127.5 - 1


@torch.no_grad()
def cosines(clip: CLIPModel, tokenizer: CLIPTokenizer, pixels: torch.Tensor, captions: list[str]) -> torch.Tensor:
    """Of pictures (rows) and captions (columns)."""
    answer = clip(**tokenizer(captions, padding=True, truncation=True, return_tensors="pt"), pixel_values=pixels)
    cosine: torch.Tensor = answer.image_embeds @ answer.text_embeds.T
    return cosine


def found(clip: CLIPModel, tokenizer: CLIPTokenizer, pixels: torch.Tensor, captions: list[str]) -> float:
    """The share of pictures whose nearest caption is their own."""
    return share(cosines(clip, tokenizer, pixels, captions).argmax(dim=1))


def share(best: torch.Tensor) -> float:
    """How many of these are their own number."""
    return float((best == torch.arange(len(best))).float().mean())


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:5]))
