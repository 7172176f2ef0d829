"""Two processes over gloo learn what one does; one that is killed is said, and the state goes on."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
import torch

from stages.base.random_families import build
from stages.encode.params import EncodeParams
from stages.encode.run import main as encode
from tests.conftest import ROOT
from tests.train.test_methods import lay

pytestmark = pytest.mark.slow
PARAMS = """
train:
  compute: {compute}
  steps: {steps}
  batch_size: {batch_size}
  accumulation: 2
  learning_rate: 1e-3
  log_every: 1
  validate_every: {steps}
  validation_bins: 2
  preview_every: 0
  checkpoint_every: 1
"""


@pytest.fixture(autouse=True)
def no_states(project: Path) -> None:
    shutil.rmtree(project / ".dvc" / "tmp" / "darkroom" / "train", ignore_errors=True)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    (folder / ".dvc").mkdir()
    build("tiny", 0).save_pretrained(folder / "base")
    lay(folder / "processed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_ROOT", str(folder))
        encode(EncodeParams(batch_size=4), *(folder / name for name in ("processed", "base", "latents", "m.json")))
    return folder


def start(project: Path, compute: str, steps: int, batch_size: int = 4) -> subprocess.Popen[str]:
    """Train; with other params than before, from the start."""
    (project / "params.yaml").write_text(PARAMS.format(compute=compute, steps=steps, batch_size=batch_size))
    places = {name: name for name in ("latents", "processed", "base")} | {
        "out": f"out-{compute}",
        "live": f"live-{compute}",
    }
    words = [word for name, path in places.items() for word in (f"--{name}", path)]
    command = [sys.executable, "-m", "stages.train.run", "--compute", str(ROOT / "compute" / f"{compute}.yaml"), *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "DVC_ROOT": str(project), "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        command, cwd=project, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_two_processes_follow_the_curve_of_one(project: Path) -> None:
    """The same effective batch: every loss within 1e-4 over 50 steps, and so the weights."""
    curves = []
    for compute in ("one", "two"):
        process = start(project, compute, 50)
        said, errors = process.communicate(timeout=240)
        assert process.returncode == 0, said + errors
        curves.append(pd.read_csv(project / f"live-{compute}/plots/metrics/train/loss.tsv", sep="\t")["loss"])
    assert len(curves[0]) == 50
    assert ((curves[0] - curves[1]).abs() / curves[0]).max() < 1e-4
    assert curves[0].iloc[-5:].mean() < 0.9 * curves[0].iloc[:5].mean()


def test_a_killed_process_is_said_and_the_state_goes_on(project: Path) -> None:
    process = start(project, "two", 40)
    workers = wait_for_steps(project, process, 3)
    workers[-1].kill()
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert errors.splitlines() == [
        "error: train: one of 2 processes was killed (SIGKILL: by the system, if memory ran out); "
        "run it again: it goes on from its last state"
    ]
    again = start(project, "two", 40)
    said, errors = again.communicate(timeout=240)
    assert again.returncode == 0, errors
    assert re.search(r"going on after step \d+", said)
    curve = pd.read_csv(project / "live-two/plots/metrics/train/loss.tsv", sep="\t")
    assert curve["step"].tolist() == list(range(1, 41))


def test_sigterm_ends_all_of_them_after_a_whole_step(project: Path) -> None:
    process = start(project, "two", 41)
    workers = wait_for_steps(project, process, 2)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode == 143
    assert not psutil.wait_procs(workers, timeout=20)[1]
    (state,) = states_of(project)
    assert torch.load(state, weights_only=True)["step"] >= 2


def states_of(project: Path) -> list[Path]:
    return list((project / ".dvc" / "tmp" / "darkroom" / "train").glob("*/state.pt"))


def wait_for_steps(project: Path, process: subprocess.Popen[str], steps: int) -> list[psutil.Process]:
    """Once so many steps are saved, the processes that do the work."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        assert process.poll() is None, process.communicate()
        for state in states_of(project):
            if torch.load(state, weights_only=True)["step"] >= steps:
                children = psutil.Process(process.pid).children(recursive=True)
                return [child for child in children if "accelerate.commands.launch" not in " ".join(child.cmdline())]
        time.sleep(0.05)
    raise AssertionError("it is too slow")


def test_a_batch_that_can_not_be_shared_is_refused(project: Path) -> None:
    process = start(project, "two", 3, batch_size=3)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert errors.splitlines() == [
        "error: train.batch_size: is 3, which 2 processes can't share evenly; make it a multiple of 2"
    ]
