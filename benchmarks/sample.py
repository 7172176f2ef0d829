"""Pictures a second of the stage sample beside a plain call of diffusers' pipeline, and the time to the first picture.

    python -m benchmarks.sample [runs]

1. Throughput: the same model, prompts, seeds, steps and batches; 8 pictures by models/tiny-sd at 64 px in batches of
   1, 4 and 8, by DDIM, Euler a and with guidance off (20 steps), then 2 of Stable Diffusion 1.5's shape a quarter as
   wide, untrained, at 256 px (5 steps). Both sides in this process, in turns; medians. The aim: 1.0. `apart` is the
   largest difference between the two sides' pictures, grey levels of 255.
2. Cold start: from a shell to one picture on disk, 20 steps; the whole stage, sheet and JSON too, beside a script of
   five lines.

JSON lines, {"name", "ours", "peer", "ratio", "unit"}; a ratio above 1: ours is better. `others`: the cores that other
programs had; `cpu`: the ratio of the seconds that each side's own threads worked, which they change less.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
import torch
import yaml
from diffusers import StableDiffusionPipeline
from PIL import Image

from benchmarks.reuse import ROOT
from benchmarks.train_step import save_quarter
from stages.core.prompts import read_prompt
from stages.core.sampling import Drawing, draw, side_of
from stages.core.schedulers import make_scheduler

MODEL = ROOT / "models" / "tiny-sd"
PROMPTS = ["red apple", "grinning face", "cat face", "automobile"]
# sampler, guidance, batch size
CASES = [("ddim", 5.0, 1), ("ddim", 5.0, 4), ("ddim", 5.0, 8), ("euler_a", 5.0, 8), ("ddim", 1.0, 8)]
PLAIN = """
import sys, torch
from diffusers import StableDiffusionPipeline
pipeline = StableDiffusionPipeline.from_pretrained(sys.argv[1], safety_checker=None, requires_safety_checker=False)
generator = torch.Generator().manual_seed(0)
pipeline("red apple", num_inference_steps=20, guidance_scale=5.0, generator=generator).images[0].save(sys.argv[2])
"""


def plain(pipeline: Any, drawings: list[Drawing], batch_size: int) -> list[Image.Image]:
    """As one calls a pipeline: a list of prompts and of generators a batch."""
    pictures: list[Image.Image] = []
    for first in range(0, len(drawings), batch_size):
        batch = drawings[first : first + batch_size]
        pictures += pipeline(
            [one.prompt for one in batch],
            num_inference_steps=batch[0].steps,
            guidance_scale=batch[0].guidance,
            generator=[torch.Generator().manual_seed(one.seed) for one in batch],
        ).images
    return pictures


def timed(work: Callable[[], list[Image.Image]]) -> tuple[float, float, list[Image.Image]]:
    """Seconds that passed, seconds of work, pictures."""
    began, worked = time.perf_counter(), time.process_time()
    pictures = work()
    return time.perf_counter() - began, time.process_time() - worked, pictures


def compare(pipeline: Any, name: str, drawings: list[Drawing], batch_size: int, runs: int) -> None:
    """Both sides in turns, after one round that isn't counted."""
    sampler = make_scheduler(pipeline.scheduler, drawings[0].scheduler, drawings[0].steps)
    own, apart, others = pipeline.scheduler, 0, list[float]()
    seconds: dict[str, list[float]] = {"ours": [], "peer": []}
    work: dict[str, list[float]] = {"ours": [], "peer": []}
    for number in range(runs + 1):
        began, busy, mine = time.perf_counter(), busy_cores(), time.process_time()
        drawn = timed(lambda: draw(pipeline, drawings, batch_size, read_prompt))
        pipeline.scheduler = sampler
        wanted = timed(lambda: plain(pipeline, drawings, batch_size))
        pipeline.scheduler = own
        pairs = zip(drawn[2], wanted[2], strict=True)
        apart = max(int(np.abs(np.asarray(a, int) - np.asarray(b, int)).max()) for a, b in pairs)
        if number:
            for side, told in (("ours", drawn), ("peer", wanted)):
                seconds[side].append(told[0])
                work[side].append(told[1])
            others.append((busy_cores() - busy - time.process_time() + mine) / (time.perf_counter() - began))
    ours, peer = (len(drawings) / median(seconds[side]) for side in ("ours", "peer"))
    cpu = round(median(work["peer"]) / median(work["ours"]), 3)
    tell(name, ours, peer, ours / peer, "pictures/s", cpu=cpu, apart=apart, others=round(median(others), 2))


def busy_cores() -> float:
    """Seconds that the machine's cores have worked so far."""
    spent = psutil.cpu_times()
    return float(spent.user + spent.system + getattr(spent, "nice", 0))


def cold_starts(folder: Path, runs: int) -> None:
    """Seconds from starting a process to one picture on disk."""
    section = {"prompts": ["red apple"], "seeds": [0], "steps": 20, "guidance": 5.0}
    (folder / "params.yaml").write_text(yaml.safe_dump({"sample": section}), encoding="utf-8")
    (folder / "prompts").mkdir()
    words = {"--model": MODEL, "--prompts": folder / "prompts", "--imported": folder / "none", "--out": folder / "out"}
    stage = [sys.executable, "-m", "stages.sample.run", *(str(word) for pair in words.items() for word in pair)]
    script = [sys.executable, "-c", PLAIN, str(MODEL), str(folder / "plain.png")]
    seconds: dict[str, list[float]] = {"ours": [], "peer": []}
    work: dict[str, list[float]] = {"ours": [], "peer": []}
    quiet = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    for number in range(runs + 1):
        for side, command in (("ours", stage), ("peer", script)):
            began, worked = time.perf_counter(), children()
            subprocess.run(command, cwd=folder, check=True, capture_output=True, env=quiet)
            if number:
                seconds[side].append(time.perf_counter() - began)
                work[side].append(children() - worked)
    ours, peer = median(seconds["ours"]), median(seconds["peer"])
    cpu = round(median(work["peer"]) / median(work["ours"]), 3)
    tell("from a cold start to the first picture", ours, peer, peer / ours, "s", cpu=cpu)


def children() -> float:
    """Seconds that the programs started here have worked."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def tell(name: str, ours: float, peer: float, ratio: float, unit: str, **further: Any) -> None:
    values = {"name": name, "ours": round(ours, 3), "peer": round(peer, 3), "ratio": round(ratio, 3), "unit": unit}
    print(json.dumps(values | further), flush=True)


def main(runs: int = 3) -> None:
    """Both comparisons."""
    pipeline = open_plain(MODEL)
    side = side_of(pipeline)
    for name, guidance, batch_size in CASES:
        drawings = [Drawing(PROMPTS[seed % 4], seed, (side, side), 20, guidance, scheduler=name) for seed in range(8)]
        compare(pipeline, f"tiny-sd, {name}, guidance {guidance:g}, batch {batch_size}", drawings, batch_size, runs)
    with tempfile.TemporaryDirectory() as folder:
        save_quarter(Path(folder) / "quarter")
        pipeline = open_plain(Path(folder) / "quarter")
        drawings = [Drawing("red apple", seed, (256, 256), 5) for seed in range(2)]
        pipeline.unet.config["sample_size"] = 256 // pipeline.vae_scale_factor
        compare(pipeline, "a quarter of Stable Diffusion 1.5, 256 px, ddim, guidance 5, batch 2", drawings, 2, runs)
        cold_starts(Path(folder), runs)


def open_plain(model: Path) -> Any:
    """A pipeline as one opens it."""
    pipeline = StableDiffusionPipeline.from_pretrained(model, safety_checker=None, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
