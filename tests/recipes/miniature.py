"""A recipe at miniature size, and every stage of dvc.yaml on it, one after another in this process.

`dvc repro` starts a program a stage, which imports torch and diffusers each time: 40 s. The stages and their arguments
are dvc.yaml's all the same, resolved by DVC itself.
"""

import importlib
import shlex
import shutil
import signal
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from accelerate.state import AcceleratorState
from dvc.repo import Repo

from stages.core.stage import run_stage
from tests.conftest import ROOT

# How much, never what: no threshold, caption template, filter, method, optimiser or precision is among them.
SMALL: dict[str, dict[str, Any]] = {
    "preprocess": {"resolution": 32, "bucket_step": 8},
    "train": {
        "steps": 4,
        "batch_size": 2,
        "warmup_steps": 1,
        "log_every": 2,
        "validate_every": 2,
        "validation_pictures": 4,
        "validation_bins": 2,
        "preview_every": 2,
        "preview_steps": 2,
        "checkpoint_every": 2,
    },
    "sample": {"steps": 2, "seeds": [0]},
    "evaluate": {"bins": 2, "pictures": 4},
}
BASES = {"stable-diffusion-xl": "random:tiny-sdxl", "stable-diffusion-3": "random:tiny-sd3"}
PARTS = ("dvc.yaml", "versions.yaml", "compute", "data/review.csv", "models/tiny-sd")
EMPTY = ("data/conditions", "data/prompts", "data/sources", "models/imported")


def miniature(recipe: dict[str, Any]) -> dict[str, Any]:
    """The recipe with fewer steps and smaller pictures, on random weights of its base's family."""
    small = deepcopy(recipe)
    model = small["base"]["model"]
    if not model.startswith("folder:"):
        small["base"]["model"] = next((tiny for name, tiny in BASES.items() if name in model), "random:tiny")
    for name, knobs in SMALL.items():
        small[name] |= knobs
    for grid in small["grid"].values():
        grid["steps"] = 2
    if small["clean"].get("validation_count") is None:
        small["clean"]["validation_share"] = 0.25  # of twelve pictures; where the set has its own, of none
    if "prior" in small["train"]:
        small["train"]["prior"] = small["train"]["prior"] | {"pictures": 2, "steps": 2}
    for source in small["collect"]["sources"]:
        if source["kind"] == "urls":
            source["allow_hosts"] = ["127.0.0.1"]
        if source["kind"] == "openmoji":  # 4,495 pictures, which come with the package: another set of emoji
            source |= {"kind": "iconify", "name": "emoji"}
    small["sample"]["prompts"] = small["sample"]["prompts"][:2]
    return small


def make_project(root: Path, params: dict[str, Any]) -> None:
    """What dvc.yaml's stages need to be there, with these params."""
    for name in PARTS:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile)(ROOT / name, root / name)
    for name in EMPTY:
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    Repo.init(str(root), no_scm=True).close()


def run_all(project: Path, monkeypatch: pytest.MonkeyPatch, last: str = "report") -> list[str]:
    """Run each stage of dvc.yaml in the project, up to one of them; give back their names."""
    monkeypatch.chdir(project)
    monkeypatch.setenv("DVC_ROOT", str(project))
    monkeypatch.setenv("DARKROOM_WORKERS", "1")  # a process takes longer to start than such data to be worked on
    with Repo(str(project)) as repo:
        stages = [stage for stage in repo.index.stages if stage.cmd]
    ran: list[str] = []
    AcceleratorState._reset_state(reset_partial_state=True)  # a process has one precision, recipes have several
    try:
        for stage in stages:
            run_one(stage, project, monkeypatch)
            ran.append(stage.addressing)
            if stage.addressing == last:
                return ran
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
    raise AssertionError(f"dvc.yaml has no stage {last}")


def run_one(stage: Any, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a stage of dvc.yaml as its command says; what it needs has to be there, and what it promises afterwards."""
    _, _, module, *words = shlex.split(stage.cmd)
    needed = [dep.def_path for dep in stage.deps if not hasattr(dep, "params")]
    for path in needed:
        ours = path.startswith("stages/")  # the code is this checkout's
        assert ours or (project / path).exists(), f"{stage.addressing} runs before there is a {path}"
    monkeypatch.setattr(sys, "argv", [module, *words])
    handler = signal.getsignal(signal.SIGTERM)
    try:
        run_stage(importlib.import_module(module).main)
    finally:
        signal.signal(signal.SIGTERM, handler)
    for out in stage.outs:
        assert (project / out.def_path).exists(), f"{stage.addressing} made no {out.def_path}"
