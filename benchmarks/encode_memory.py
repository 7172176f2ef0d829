"""What the passes of a VAE of Stable Diffusion's size take of memory, beside the formula that sizes batches.

    python -m benchmarks.encode_memory

On Linux, on the processor: the peak of the process's memory over what it had before. Prints JSON lines: MiB measured,
MiB by `stages.encode.memory` for a picture's encoding, times pictures.
"""

import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.encode import CHANNELS, save_vae
from stages.core.models import load_vae
from stages.encode.memory import FLOAT32, HELD

STATUS, FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
CASES = ((256, 256, 1), (256, 256, 4), (512, 512, 1), (512, 256, 2))  # width, height, pictures


def kept(field: str) -> int:
    """KiB that the process has (VmRSS), or had at most (VmHWM)."""
    found = re.search(rf"{field}:\s+(\d+)", STATUS.read_text())
    assert found
    return int(found[1])


def peak(work: Callable[[], Any]) -> int:
    """MiB that it took beyond what was there."""
    FORGET.write_text("5")  # VmHWM starts anew: proc(5)
    before = kept("VmRSS")
    work()
    return (kept("VmHWM") - before) // 1024


@torch.no_grad()
def main() -> None:
    """Encode in each case; decode one picture, as boomerang does."""
    with tempfile.TemporaryDirectory() as name:
        save_vae(Path(name))
        vae = load_vae(Path(name))
    for width, height, count in CASES:
        pixels = torch.rand(count, 3, height, width)
        formula = count * HELD * FLOAT32 * CHANNELS[0] * width * height // 2**20
        about = {"pictures": count, "px": f"{width} x {height}", "formula": formula, "unit": "MiB"}
        print(json.dumps({"name": "encode", "value": peak(lambda: vae.encode(pixels)), **about}), flush=True)  # noqa: B023 - called at once
        if count == 1:
            latents = vae.encode(pixels).latent_dist.mode()
            print(json.dumps({"name": "decode", "value": peak(lambda: vae.decode(latents)), **about}), flush=True)  # noqa: B023 - called at once


if __name__ == "__main__":
    main()
