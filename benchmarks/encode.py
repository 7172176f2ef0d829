"""Latents a second of the stage encode beside its ceiling: the bare VAE on tensors that are there already.

    python -m benchmarks.encode [runs]

A VAE of Stable Diffusion's size with random weights, at 64, 256 and 512 px. Ours reads PNGs from Parquet, encodes,
checks and stores; the ceiling is `vae.encode` in batches of the same size, posterior and all. Prints a JSON line a
size, {"name", "ours", "peer", "ratio", "unit"}; the aim is 0.9.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import torch
from diffusers import AutoencoderKL

from benchmarks.reuse import forget, lay
from stages.core.pairs import read_rows, shards_below
from stages.core.pixels import to_pixels
from stages.encode.params import EncodeParams
from stages.encode.posteriors import Posteriors
from stages.encode.run import read_processed

CHANNELS = (128, 256, 512, 512)
SIZES = {64: (64, 16), 256: (8, 4), 512: (3, 1)}  # px: pictures, batch size


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


def main(runs: int = 3) -> None:
    """In turn, after one batch of each that isn't counted; 512 px last."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / ".dvc").mkdir()
        os.environ["DVC_ROOT"] = name
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


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
