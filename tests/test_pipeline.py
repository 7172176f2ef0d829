"""The whole house, run by DVC as its users do, at miniature size."""

import json
import os
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import networkx
import psutil
import pytest
import yaml
from dvc.repo import Repo
from PIL import Image

from stages.core.files import file_digest, folder_digest
from stages.core.times import read_times
from tests.conftest import make_project, run, write_pictures

pytestmark = pytest.mark.slow

TRAINED = ["train", "merge@half", "sample@trained", "sample_merged@half", "grid", "evaluate", "report"]
CLEANED = ["clean", "preprocess", "encode", *TRAINED]
SCORED = ["score", "inspect", *CLEANED]


@pytest.fixture(scope="module")
def project(miniature: Path) -> Path:
    return miniature


@pytest.fixture
def read_project(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The same, as the current folder; edits of its params are undone."""
    monkeypatch.chdir(project)
    yield project
    run(project, "git", "checkout", "-q", "-f", "main", "--", "params.yaml")


@pytest.fixture
def clean_project(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The same, as the current folder; whatever the test changes is undone."""
    monkeypatch.chdir(project)
    yield project
    run(project, "git", "checkout", "-q", "-f", "main", "--", ".")
    run(project, "dvc", "checkout", "-q", "--force")
    for leftover in ("models/again", "reports/again"):
        shutil.rmtree(project / leftover, ignore_errors=True)


TRAIN = shlex.split(
    "--compute compute/one.yaml --latents data/latents --processed data/processed --base models/base "
    "--out models/again --live reports/again"
)
CHECK = shlex.split(
    "--sources data/sources --imported models/imported --conditions data/conditions --prompts data/prompts "
    "--out data/x.json"
)


def edit(project: Path, section: str, **values: object) -> None:
    path = project / "params.yaml"
    params = yaml.safe_load(path.read_text())
    params[section] = {**params[section], **values}
    path.write_text(yaml.safe_dump(params))


def ran(output: str) -> list[str]:
    return re.findall(r"Running stage '([^']+)'", output)


def test_the_page_and_the_figures(project: Path) -> None:
    page = (project / "reports" / "index.html").read_text()
    assert "drawing number" in page
    assert set(re.findall(r'(?:src|href)="(?!data:|#)([^"]*)"', page)) == {"times.js"}, "the page needs another file"
    times = read_times(project / "reports" / "times.js")
    assert {"check", "train", "sample@trained", "report"} <= set(times)
    assert all(row["seconds"] > 0 and row["megabytes"] > 10 for row in times.values())
    evaluation = json.loads((project / "reports" / "evaluation.json").read_text())
    assert set(evaluation) == {"base", "trained", "half"}
    for model in evaluation:
        with Image.open(project / "data" / "samples" / model / "000-0.png") as picture:
            assert picture.size == (32, 32)
            assert picture.info["parameters"].startswith("a drawing\nSteps: 2, Sampler: DDIM")


def processor_seconds() -> float:
    """Of all programs that ended since this process began: what else the machine does is not in it."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def test_again_runs_nothing_and_hardly_takes_longer_than_status(project: Path) -> None:
    seconds = {}
    for command in ("status", "repro"):
        start = processor_seconds()
        finished = run(project, "dvc", command)
        seconds[command] = processor_seconds() - start
        assert "up to date" in finished.stdout + finished.stderr
        assert not ran(finished.stdout)
    assert seconds["repro"] < seconds["status"] + 2


GRID = {"prompt": "a", "x": {"name": "ratio", "values": [0, 1]}, "y": {"name": "guidance", "values": [1, 3]}}
TABLE = [
    ("base", {"seed": 1}, ["base", "encode", *TRAINED, "sample@base"]),
    ("collect", {"sources": [{"kind": "folder", "name": "drawings", "limit": 20}]}, ["collect", "caption", *SCORED]),
    ("caption", {"max_tokens": 8}, ["caption", *SCORED]),
    ("score", {"batch_size": 4}, ["score", *CLEANED]),
    ("inspect", {"background": [0, 0, 0]}, ["inspect", *CLEANED]),
    ("clean", {"min_side": 33}, CLEANED),
    ("preprocess", {"flip": True}, ["preprocess", "encode", *TRAINED]),
    ("encode", {"batch_size": 4}, ["encode", *TRAINED]),
    ("train", {"learning_rate": 1e-4}, TRAINED),
    ("merge", {"half": {"ratio": 0.3}}, ["merge@half", "sample_merged@half", "grid", "evaluate", "report"]),
    ("sample", {"prompts": ["a house"]}, ["sample@base", "sample@trained", "sample_merged@half", "evaluate", "report"]),
    ("grid", {"one": GRID}, ["grid", "report"]),
    ("evaluate", {"bins": 3}, ["evaluate", "report"]),
    ("report", {"title": "Mine"}, ["report"]),
]


@pytest.mark.parametrize(("section", "values", "expected"), TABLE, ids=[row[0] for row in TABLE])
def test_truth_table(read_project: Path, section: str, values: dict[str, object], expected: list[str]) -> None:
    """Edit this, and exactly these are due: what `dvc status` calls changed, and what builds on it.

    `check` reads all of params.yaml and is always due; its output never changes, so it carries nothing on.
    """
    edit(read_project, section, **values)
    with Repo() as repo:
        changed = set(repo.status())
        graph = repo.index.graph
        due = set()
        for stage in graph:
            if stage.addressing in changed - {"check"}:
                due |= {stage, *networkx.ancestors(graph, stage)}  # DVC's edges lead from a stage to what it needs
        names = {stage.addressing for stage in due}
    assert "check" in changed
    assert names == set(expected)


def test_a_real_edit_runs_what_the_table_says(clean_project: Path) -> None:
    """And a stage whose output stays the same carries nothing on: `check` runs, nothing after it for its sake."""
    edit(clean_project, "merge", half={"ratio": 0.3})
    finished = run(clean_project, "dvc", "repro")
    told = ran(finished.stdout)
    assert sorted(told) == sorted(["check", "merge@half", "sample_merged@half", "grid", "evaluate", "report"])
    assert told[:2] == ["check", "merge@half"]
    assert told[-1] == "report"


def test_two_clones_agree_on_every_byte(project: Path, tmp_path: Path) -> None:
    other = make_project(tmp_path, "elsewhere")
    run(other, "dvc", "repro", DARKROOM_WORKERS="1")
    locks = [yaml.safe_load((folder / "dvc.lock").read_text())["stages"] for folder in (project, other)]
    assert locks[0] == locks[1]


def outputs(project: Path) -> dict[str, str]:
    """A digest of each output of every stage, but for the mark that `check` leaves and how long they took."""
    listed = [path for name in ("data", "models", "reports") for path in (project / name).iterdir()]
    return {
        path.name: folder_digest(path) if path.is_dir() else file_digest(path)
        for path in listed
        if path.name not in ("checked.json", "times.js")
    }


@pytest.mark.parametrize(
    ("find", "replace", "said"),
    [
        ("learning_rate", "learning_rat", "params.yaml: unknown key train.learning_rat; did you mean learning_rate?"),
        (
            "learning_rate: 1e-3",
            "learning_rate: 7",
            "params.yaml: train.learning_rate is 7, but input should be less than",
        ),
        ("name: drawings", "name: paintings", "the folder data/sources/paintings is missing; put your pictures there"),
        ("sample:", "samples:", "params.yaml: unknown section 'samples'; did you mean sample?"),
    ],
    ids=["typo", "bound", "folder", "section"],
)
def test_bad_params_are_one_line_and_touch_nothing(clean_project: Path, find: str, replace: str, said: str) -> None:
    before = outputs(clean_project)
    path = clean_project / "params.yaml"
    path.write_text(path.read_text().replace(find, replace, 1))
    finished = run(clean_project, "dvc", "repro", check=False)
    lines = [line for line in finished.stderr.splitlines() if line.startswith("error: ")]
    assert finished.returncode != 0
    assert len(lines) == 1
    assert said in lines[0]
    assert "Traceback" not in finished.stderr
    assert outputs(clean_project) == before
    module = "train" if "train." in said else "check"
    options = TRAIN if module == "train" else CHECK
    stage = run(clean_project, sys.executable, "-m", f"stages.{module}.run", *options, check=False)
    assert (stage.returncode, len(stage.stderr.splitlines())) == (1, 1)


def start_training(project: Path, *command: str) -> subprocess.Popen[bytes]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.Popen(
        command, cwd=project, env={**os.environ, "PATH": path}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def saved_steps(project: Path) -> int:
    """How many optimiser steps the saved state of the one unfinished training holds, 0 if there is none."""
    import torch

    for path in (project / ".dvc" / "tmp" / "darkroom" / "train").glob("*/state.pt"):
        return int(torch.load(path, weights_only=True)["step"])
    return 0


def wait_for_step(project: Path, step: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 120
    while saved_steps(project) < step:
        assert process.poll() is None, "the training ended before it could be stopped"
        assert time.monotonic() < end, "the training is too slow"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("number", "steps"), [(signal.SIGKILL, (5, 17)), (signal.SIGTERM, (9,))], ids=["SIGKILL", "SIGTERM"]
)
def test_a_stopped_training_ends_with_the_same_bytes(
    clean_project: Path, number: signal.Signals, steps: tuple[int, ...]
) -> None:
    edit(clean_project, "train", steps=30, preview_every=10)
    command = [sys.executable, "-m", "stages.train.run", *TRAIN]
    run(clean_project, *command)
    straight = folder_digest(clean_project / "models" / "again"), folder_digest(clean_project / "reports" / "again")
    for name in ("models/again", "reports/again"):
        run(clean_project, "rm", "-r", name)
    for step in steps:
        process = start_training(clean_project, *command)
        wait_for_step(clean_project, step, process)
        process.send_signal(number)
        assert process.wait() != 0
        assert not (clean_project / "models" / "again").exists()
    finished = run(clean_project, *command)
    assert "going on after step" in finished.stdout
    resumed = folder_digest(clean_project / "models" / "again"), folder_digest(clean_project / "reports" / "again")
    assert resumed == straight
    assert not list((clean_project / ".dvc" / "tmp" / "darkroom" / "train").glob("*/state.pt"))


def test_a_killed_temporary_experiment_goes_on(clean_project: Path) -> None:
    """DVC deletes its workspace with all that is in it: the state must lie elsewhere."""
    change = ["-S", "train.steps=40", "-S", "+train.seed=3", "train"]
    process = start_training(clean_project, "dvc", "exp", "run", "--temp", "--name", "killed", *change)
    wait_for_step(clean_project, 7, process)
    children = psutil.Process(process.pid).children(recursive=True)
    for child in [*children, psutil.Process(process.pid)]:
        child.kill()
    process.wait()
    assert saved_steps(clean_project) >= 7
    finished = run(clean_project, "dvc", "exp", "run", "--temp", "--name", "resumed", *change)
    assert "going on after step" in finished.stdout + finished.stderr
    edit(clean_project, "train", steps=40, seed=3)
    run(clean_project, sys.executable, "-m", "stages.train.run", *TRAIN)
    weights = (clean_project / "models" / "again" / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()
    run(clean_project, "git", "checkout", "-q", "-f", "main", "--", ".")
    run(clean_project, "dvc", "exp", "apply", "resumed")
    assert (
        clean_project / "models" / "trained" / "unet" / "diffusion_pytorch_model.safetensors"
    ).read_bytes() == weights


def test_a_recipe_that_is_taken_out_is_not_measured(clean_project: Path) -> None:
    """DVC leaves its folders; they must not creep into what later stages see."""
    run(clean_project, "dvc", "exp", "run", "-S", "+merge.soft.ratio=0.1")
    assert "soft" in json.loads((clean_project / "reports" / "evaluation.json").read_text())
    run(clean_project, "git", "checkout", "-q", "-f", "main", "--", "params.yaml", "dvc.lock")
    refused = run(clean_project, "dvc", "repro", check=False)
    assert "error: evaluate: models/merged/soft, data/samples/soft belong to no recipe" in refused.stderr
    for path in ("models/merged/soft", "data/samples/soft"):
        shutil.rmtree(clean_project / path)
    run(clean_project, "dvc", "repro")
    assert set(json.loads((clean_project / "reports" / "evaluation.json").read_text())) == {"base", "trained", "half"}
    assert not run(clean_project, "git", "diff", "HEAD", "--", "dvc.lock").stdout


def test_the_queue(clean_project: Path) -> None:
    run(clean_project, "dvc", "exp", "run", "--queue", "--name", "queued", "-S", "+report.title=Queued")
    assert "queued" in run(clean_project, "dvc", "queue", "status").stdout
    run(clean_project, "dvc", "exp", "run", "--run-all")
    assert "queued" in run(clean_project, "dvc", "exp", "list", "--name-only").stdout


def test_a_colleague_pulls_and_runs_nothing(project: Path, tmp_path: Path) -> None:
    run(project, "dvc", "remote", "add", "--local", "-f", "-d", "team", str(tmp_path / "remote"))
    run(project, "dvc", "push")
    run(tmp_path, "git", "clone", "-q", str(project), "colleague")
    colleague = tmp_path / "colleague"
    run(colleague, "dvc", "remote", "add", "--local", "-d", "team", str(tmp_path / "remote"))
    run(colleague, "dvc", "pull")
    assert outputs(colleague) == outputs(project)
    assert not ran(run(colleague, "dvc", "repro").stdout)


def test_more_pictures_of_ones_own(clean_project: Path) -> None:
    """`dvc add` after pictures came: collect is due, base is not."""
    sources = clean_project / "data" / "sources" / "drawings"
    run(clean_project, "dvc", "unprotect", "data/sources/drawings")
    write_pictures(sources, 2, first=500)
    run(clean_project, "dvc", "add", "-q", "data/sources/drawings")
    with Repo() as repo:
        changed = set(repo.status())
    assert changed == {"check", "collect"}
