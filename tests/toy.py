"""A project whose stages take no time, as DVC sees ours: for what DVC does with it."""

import json
from pathlib import Path

import yaml

from tests.conftest import commit, run

TOY = """
import contextlib, json, math, os, pathlib, sys, time, yaml

def log(line):
    with open(os.environ.get("TOY_LOG", os.devnull), "a") as file:
        file.write(line + "\\n")

stage = sys.argv[1]
log(stage)
params = yaml.safe_load(pathlib.Path("params.yaml").read_text())
train = params["train"]
if stage == "clean":
    pathlib.Path("data").mkdir(exist_ok=True)
    pathlib.Path("data/clean.txt").write_text(str(params["clean"]["min_side"]))
elif stage == "train":
    held = contextlib.ExitStack()
    if "TOY_LEASES" in os.environ:
        from stages.core.gpus import leased
        held.enter_context(leased(1))
        log("takes " + os.environ["CUDA_VISIBLE_DEVICES"])
    far = (math.log10(float(train["learning_rate"])) + 3) ** 2
    curve = pathlib.Path("reports/train/plots/metrics/validation/loss.tsv")
    curve.parent.mkdir(parents=True)
    curve.write_text("step\\tloss\\n")
    for step in range(train["steps"]):
        with curve.open("a") as file:
            file.write(f"{step}\\t{far + 1 / (step + 1)}\\n")
        if step:
            time.sleep(float(os.environ.get("TOY_SECONDS", "0")))
    if "TOY_LEASES" in os.environ:
        log("leaves " + os.environ["CUDA_VISIBLE_DEVICES"])
    held.close()
    pathlib.Path("models/trained").mkdir(parents=True)
    pathlib.Path("models/trained/weights").write_text(f"{far} {pathlib.Path('data/clean.txt').read_text()}")
else:
    loss = float(pathlib.Path("models/trained/weights").read_text().split()[0])
    pathlib.Path("reports/evaluation.json").write_text(json.dumps({"trained": {"loss": loss}}))
"""
PIPELINE = {
    "stages": {
        "clean": {"cmd": "python toy.py clean", "params": ["clean"], "outs": ["data/clean.txt"]},
        "train": {
            "cmd": "python toy.py train",
            "deps": ["data/clean.txt"],
            "params": ["train"],
            "outs": ["models/trained", "reports/train"],
        },
        "evaluate": {
            "cmd": "python toy.py evaluate",
            "deps": ["models/trained"],
            "params": ["merge"],
            "outs": ["reports/evaluation.json"],
        },
    },
    "metrics": ["reports/evaluation.json"],
    "artifacts": {"trained": {"path": "models/trained", "type": "model"}},
}
PARAMS = {
    "clean": {"min_side": 64},
    "merge": {"half": {"ratio": 0.5}},
    "train": {"learning_rate": 0.01, "seed": 0, "steps": 2},
}


def edit(project: Path, key: str, value: object) -> None:
    """Set a param."""
    params = yaml.safe_load((project / "params.yaml").read_text())
    section, name = key.split(".")
    params[section][name] = value
    (project / "params.yaml").write_text(yaml.safe_dump(params))


def loss_of(project: Path) -> float:
    """What the project's evaluation says."""
    return float(json.loads((project / "reports" / "evaluation.json").read_text())["trained"]["loss"])


def make_toy(root: Path, name: str = "toy") -> Path:
    """A project of three stages, run once and committed."""
    project = root / name
    project.mkdir(parents=True)
    (project / "toy.py").write_text(TOY)
    (project / "dvc.yaml").write_text(yaml.safe_dump(PIPELINE, sort_keys=False))
    (project / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    (project / ".gitignore").write_text("/data/clean.txt\n/models/\n/reports/\n")
    run(project, "git", "init", "-q", "-b", "main")
    run(project, "git", "config", "user.name", "test")
    run(project, "git", "config", "user.email", "test@localhost")
    run(project, "dvc", "init", "-q")
    run(project, "dvc", "config", "core.analytics", "false")
    run(project, "dvc", "config", "core.check_update", "false")
    run(project, "dvc", "repro", "-q")
    commit(project, "The toy")
    return project
