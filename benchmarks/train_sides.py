"""The sides of `benchmarks.train_step`, each a program of its own: on two cores, with two threads.

    python -m benchmarks.train_sides ours|bare FOLDER
    python -m benchmarks.train_sides theirs SCRIPT [ARGUMENTS]

The last line is JSON: `times`, seconds at the end of every optimiser step, and `peak`, the most memory that the process
has held from its start to its end, bytes. Each imports what it needs, and no more: that is memory too.
"""

import json
import os
import runpy
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

COMPUTE = Path(__file__).parents[1] / "compute" / "cpu.yaml"


def ours(times: list[float], folder: Path) -> None:
    """The stage itself, from its params to the saved model."""
    from stages.train import run

    class Timed(run.Record):
        def step(self, *taken: Any) -> None:
            super().step(*taken)
            times.append(time.perf_counter())

    params = run.TrainParams.model_validate_json((folder / "train.json").read_text())
    with patch.object(run, "Record", Timed):
        run.main(
            params, COMPUTE, folder / "latents", folder / "processed", folder / "base", folder / "out", folder / "live"
        )


def bare(times: list[float], folder: Path) -> None:
    """The UNet on one batch that is there already: nothing is read, drawn, noised, logged or looked at."""
    import torch
    from torch.nn.functional import mse_loss

    from stages.train.averages import average_weights
    from stages.train.diffusion import open_diffusion
    from stages.train.optimizers import make_optimizers
    from stages.train.params import TrainParams
    from stages.train.rates import learning_rate

    torch.set_flush_denormal(True)
    params = TrainParams.model_validate_json((folder / "train.json").read_text())
    opened = open_diffusion(params, folder / "latents", folder / "base")
    _, batch = opened.prepare(range(params.batch_size), range(params.batch_size))
    unet, process = opened.opened.denoiser.network, opened.opened.denoiser.process
    timesteps, text = process.timesteps(batch["levels"]), batch["embeddings"]
    noised = process.noised(batch["latents"], batch["noise"], timesteps).contiguous(memory_format=torch.channels_last)
    target = process.target(batch["latents"], batch["noise"], timesteps)
    unet.to(memory_format=torch.channels_last).train()
    weights = dict(unet.named_parameters())
    average = {name: weight.detach().clone() for name, weight in weights.items()}
    optimizers = make_optimizers(params, unet)
    for step in range(params.steps):
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = learning_rate(params, step)
        mse_loss(unet(noised, timesteps, text).sample, target).backward()
        torch.nn.utils.clip_grad_norm_(weights.values(), params.max_grad_norm)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        average_weights(params, average, weights, step)
        times.append(time.perf_counter())


def theirs(times: list[float], script: str, *arguments: str) -> None:
    """The script as shipped; it logs once a step, which is when the time is taken.

    Where there is no torchvision, `benchmarks.transforms` stands in for the one module that the script takes of it. The
    libraries are opened first: they would take the stand-in for the whole.
    """
    import datasets  # noqa: F401 - opened before the stand-in is there
    from accelerate import Accelerator
    from diffusers import StableDiffusionPipeline, training_utils  # noqa: F401 - opened before the stand-in is there
    from transformers import CLIPTextModel  # noqa: F401 - opened before the stand-in is there

    if not find_spec("torchvision"):
        from benchmarks import transforms

        torchvision: Any = ModuleType("torchvision")
        torchvision.transforms = transforms
        sys.modules["torchvision"] = torchvision
    log = Accelerator.log

    def timed(self: Accelerator, *logged: Any, **more: Any) -> None:
        log(self, *logged, **more)
        times.append(time.perf_counter())

    sys.argv = [script, *arguments]
    with patch.object(Accelerator, "log", timed):
        runpy.run_path(script, run_name="__main__")


def peak() -> int:
    """Bytes: the high-water mark of resident memory (Linux; getrusage's would count what this was forked from)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def main(side: str, *arguments: str) -> None:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    times: list[float] = []
    match side:
        case "ours":
            ours(times, Path(*arguments))
        case "bare":
            bare(times, Path(*arguments))
        case "theirs":
            theirs(times, *arguments)
    print(json.dumps({"times": times, "peak": peak()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
