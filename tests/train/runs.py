"""Trainings as people start them: programs of their own, in a project that is ready for it."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import torch
import yaml

from tests.conftest import ROOT

PARAMS = {
    "accumulation": 2,
    "learning_rate": 1e-3,
    "log_every": 1,
    "validation_bins": 2,
    "preview_every": 0,
    "checkpoint_every": 1,
}
UNSTOPPED = {"checkpoint_every": 1000}  # of a training that isn't stopped: with split weights a state takes a second


def start(
    project: Path, compute: str | Path, steps: int, knobs: dict[str, Any] | None = None, **environment: str
) -> subprocess.Popen[str]:
    """Train; with other params than before, from the start. compute: a file's name in compute/, or a file elsewhere."""
    file = compute if isinstance(compute, Path) else ROOT / "compute" / f"{compute}.yaml"
    section = {
        "compute": file.stem,
        "steps": steps,
        "validate_every": steps,
        "batch_size": 4,
        **PARAMS,
        **(knobs or {}),
    }
    (project / "params.yaml").write_text(yaml.safe_dump({"train": section}))
    places = {name: name for name in ("latents", "processed", "base")} | {
        "compute": str(file),
        "out": f"out-{file.stem}",
        "live": f"live-{file.stem}",
    }
    words = [word for name, path in places.items() for word in (f"--{name}", path)]
    known = {"PYTHONPATH": str(ROOT), "DVC_ROOT": str(project), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "stages.train.run", *words],
        cwd=project,
        env=os.environ | known | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str], status: int = 0) -> tuple[str, str]:
    """What it said, and its errors."""
    said, errors = process.communicate(timeout=240)
    assert process.returncode == status, said + errors
    return said, errors


def curve_of(project: Path, compute: str) -> "pd.Series[float]":
    return pd.read_csv(project / f"live-{compute}/plots/metrics/train/loss.tsv", sep="\t")["loss"]


def states_of(project: Path) -> list[Path]:
    return list((project / ".dvc" / "tmp" / "darkroom" / "train").glob("*/state.pt"))


def working(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Those that do the work: itself, or what accelerate's launcher started for it."""
    itself = psutil.Process(process.pid)
    found = itself.children(recursive=True) or [itself]
    return [each for each in found if "accelerate.commands.launch" not in " ".join(each.cmdline())]


@contextmanager
def standing_still(process: subprocess.Popen[str]) -> Iterator[list[psutil.Process]]:
    workers = working(process)
    for worker in workers:
        worker.suspend()
    try:
        yield workers
    finally:
        for worker in workers:
            with suppress(psutil.NoSuchProcess):
                worker.resume()


def end_at(
    project: Path, process: subprocess.Popen[str], steps: int, end: Callable[[list[psutil.Process]], None]
) -> None:
    """Once so many steps are saved, end it: by its worker processes, which stand still until the end has reached them.

    However busy the machine is, it can't finish between the look and the end.
    """
    until = time.monotonic() + 120
    while time.monotonic() < until:
        assert process.poll() is None, process.communicate()
        with suppress(psutil.NoSuchProcess), standing_still(process) as workers:
            if any(torch.load(state, weights_only=True)["step"] >= steps for state in states_of(project)):
                end(workers)
                time.sleep(1)  # a launcher passes SIGTERM on
                return
        time.sleep(0.02)
    raise AssertionError("it is too slow")
