"""What the stage encode costs beside its ceiling, and what it saves: two comparisons.

    python -m benchmarks.encode [runs]

1. Latents a second at 64, 256 and 512 px, by a VAE of Stable Diffusion's size with random weights. Ours reads PNGs from
   Parquet, encodes, checks and stores; the ceiling is `vae.encode` on tensors that are there already, in batches of the
   same size, posterior and all. The aim is 0.9.
2. An epoch of training on stored latents beside one that does what diffusers' train_text_to_image.py does every step:
   decode the PNGs, tokenise, VAE, text encoder; the denoiser's step is the same. At 512 px with the parts of Stable
   Diffusion 1.5 at full depth and about a quarter of their width, so chosen that they cost beside each other what the
   whole ones do: the line tells VAE : UNet by counted FLOPs of a forward pass (1.5's own are 1,117 : 803 GFLOP, 1.39),
   and the ratio that FLOPs alone would give (1.5's own: 1.47).

Prints JSON lines, {"name", "ours", "peer", "ratio", "unit"}; above 1 ours is faster.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextConfig, CLIPTextModel

from benchmarks.reuse import forget, lay
from stages.base.random_model import character_tokenizer
from stages.core.families.family import Text, open_encoders
from stages.core.latents import Latents
from stages.core.models import load_vae
from stages.core.objective import Denoiser, open_denoiser
from stages.core.pairs import read_rows, shards_below
from stages.core.pixels import to_pixels
from stages.encode import run
from stages.encode.params import EncodeParams
from stages.encode.posteriors import Posteriors
from stages.encode.processed import read_processed

CHANNELS = (128, 256, 512, 512)
SIZES = {64: (64, 16), 256: (8, 4), 512: (3, 1)}  # px: pictures, batch size
SIDE, PICTURES = 512, 2  # of an epoch; a picture a step


def save_vae(folder: Path) -> None:
    """Stable Diffusion 1.5's autoencoder, untrained."""
    torch.manual_seed(0)
    AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=CHANNELS,
        layers_per_block=2,
        latent_channels=4,
        sample_size=512,
    ).save_pretrained(folder / "vae")


@torch.no_grad()
def ceiling(posteriors: Posteriors, pixels_B3HW: torch.Tensor, batch_size: int) -> float:
    """Seconds of the VAE alone."""
    began = time.perf_counter()
    for start in range(0, len(pixels_B3HW), batch_size):
        posterior = posteriors.vae.encode(pixels_B3HW[start : start + batch_size]).latent_dist
        torch.stack([posterior.mean, posterior.std])
    return time.perf_counter() - began


def save_quarter(folder: Path) -> None:
    """Stable Diffusion 1.5, untrained, at full depth and about a quarter of its width."""
    torch.manual_seed(0)
    tokenizer = character_tokenizer()
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=768,
        num_hidden_layers=12,
        num_attention_heads=12,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=[width // 4 for width in CHANNELS],
        layers_per_block=2,
        latent_channels=4,
        sample_size=512,
    )
    unet = UNet2DConditionModel(
        sample_size=64,
        block_out_channels=(88, 176, 352, 352),
        layers_per_block=2,
        cross_attention_dim=192,
        attention_head_dim=8,
        norm_num_groups=8,
    )
    parts = {"vae": vae, "text_encoder": CLIPTextModel(config), "tokenizer": tokenizer, "unet": unet}
    extras = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    schedule = DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
    )
    StableDiffusionPipeline(**parts, scheduler=schedule, **extras).save_pretrained(folder)


def stored(latents: Latents, denoiser: Denoiser) -> Iterator[tuple[torch.Tensor, Text]]:
    """Scaled latents and text of each step, from data/latents."""
    for row in range(PICTURES):
        batch = latents.read([row])
        drawn = batch.mean + batch.std * torch.randn_like(batch.std)
        yield denoiser.scale.apply(drawn), latents.text([numbers[0] for numbers in batch.captions])


def computed(
    rows: list[dict[str, Any]], vae: AutoencoderKL, encoder: Any, denoiser: Denoiser
) -> Iterator[tuple[torch.Tensor, Text]]:
    """The same, computed at every step."""
    for row in rows[:PICTURES]:
        with torch.no_grad():
            drawn = vae.encode(to_pixels([row["image"]["bytes"]])).latent_dist.sample()
            text = encoder.model(encoder.tokens([row["captions"][0]])).last_hidden_state
        yield denoiser.scale.apply(drawn), Text(text)


def epoch(denoiser: Denoiser, optimiser: torch.optim.Optimizer, steps: Iterator[tuple[torch.Tensor, Text]]) -> float:
    """Seconds of the steps: forward, backward, optimiser."""
    began = time.perf_counter()
    for latents, text in steps:
        timesteps = denoiser.process.timesteps(torch.rand(len(latents)))
        answer, target = denoiser.ask(latents, text, torch.zeros(len(latents), 6), torch.randn_like(latents), timesteps)
        (answer - target).square().mean().backward()
        optimiser.step()
        optimiser.zero_grad()
    return time.perf_counter() - began


def flops(work: Callable[[], Any]) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        work()
    return counter.get_total_flops()


def compare_epochs(folder: Path, runs: int) -> None:
    """In turn, after one step of each that isn't counted."""
    save_quarter(folder / "base")
    lay(folder, range(PICTURES + 1), SIDE)  # one is held out
    rows = list(read_rows(shards_below(folder / "processed"), ["image", "captions", "split"]))
    run.main(EncodeParams(batch_size=1), folder / "processed", folder / "base", folder / "latents", folder / "m.json")
    rows = [row for row in rows if row["split"] == "train"]
    latents = Latents(folder / "latents", "train")
    denoiser, vae = open_denoiser(folder / "base"), load_vae(folder / "base")
    (encoder,) = open_encoders(denoiser.family, folder / "base")
    optimiser = torch.optim.AdamW(denoiser.network.parameters(), lr=1e-5)
    epoch(denoiser, optimiser, islice(computed(rows, vae, encoder, denoiser), 1))
    took = []
    for _ in range(runs):
        ours = epoch(denoiser, optimiser, stored(latents, denoiser))
        took.append((ours, epoch(denoiser, optimiser, computed(rows, vae, encoder, denoiser))))
    one, other = (median(each[who] for each in took) for who in (0, 1))
    pixels, (noised, text) = to_pixels([rows[0]["image"]["bytes"]]), next(stored(latents, denoiser))
    zero = torch.zeros(1, dtype=torch.long)
    unet = flops(lambda: denoiser.network(noised, zero, text.embeddings))
    encoding = flops(lambda: vae.encode(pixels))
    words = flops(lambda: encoder.model(encoder.tokens(["a"])))
    line = {"name": "an epoch on stored latents", "ours": round(one, 2), "peer": round(other, 2)}
    line |= {"ratio": round(other / one, 3), "unit": "s", "vae_to_unet": round(encoding / unet, 3)}
    print(json.dumps({**line, "ratio_by_flops": round(1 + (encoding + words) / (3 * unet), 3)}), flush=True)


def compare_latents(folder: Path, runs: int) -> None:
    """In turn, after one batch of each that isn't counted; 512 px last."""
    save_vae(folder)
    for side, (count, batch_size) in SIZES.items():
        lay(folder, range(count), side)
        _, pictures = read_processed(folder / "processed")
        rows = read_rows(shards_below(folder / "processed"), ["image"])
        pixels_B3HW = to_pixels([row["image"]["bytes"] for row in rows])
        took = []
        for _ in range(runs):
            forget(folder)
            posteriors = Posteriors(EncodeParams(batch_size=batch_size, range=1e9), folder)
            ceiling(posteriors, pixels_B3HW[:batch_size], batch_size)
            began = time.perf_counter()
            assert sum(posteriors.encode(pictures)) == count
            ours = time.perf_counter() - began
            took.append((ours, ceiling(posteriors, pixels_B3HW, batch_size)))
        ours, peer = (count / median(run[who] for run in took) for who in (0, 1))
        line = {"name": f"encode {side} px", "ours": round(ours, 3), "peer": round(peer, 3)}
        print(json.dumps({**line, "ratio": round(ours / peer, 3), "unit": "latents/s"}), flush=True)


def main(runs: int = 3) -> None:
    """Both."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / ".dvc").mkdir()
        os.environ["DVC_ROOT"] = name
        compare_latents(folder, runs)
        compare_epochs(folder, runs)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
