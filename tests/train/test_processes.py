"""Two processes over gloo learn what one does; one that is killed is said, and the state goes on."""

import re
import signal
from pathlib import Path

import pandas as pd
import psutil
import pytest
import torch

from tests.train.runs import UNSTOPPED, curve_of, end_at, finish, start, states_of

pytestmark = pytest.mark.slow


def test_two_processes_follow_the_curve_of_one(project: Path) -> None:
    """The same effective batch: every loss within 1e-4 over 50 steps, and so the weights."""
    curves = []
    for compute in ("one", "two"):
        finish(start(project, compute, 50, UNSTOPPED))
        curves.append(curve_of(project, compute))
    assert len(curves[0]) == 50
    assert ((curves[0] - curves[1]).abs() / curves[0]).max() < 1e-4
    assert curves[0].iloc[-5:].mean() < 0.9 * curves[0].iloc[:5].mean()


def test_a_killed_process_is_said_and_the_state_goes_on(project: Path) -> None:
    process = start(project, "two", 40)
    end_at(project, process, 3, lambda workers: workers[-1].kill())
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
    """They share what the first of them leased."""
    process = start(project, "two", 41, CUDA_VISIBLE_DEVICES="GPU-none,GPU-nor-this,GPU-third")
    found: list[psutil.Process] = []

    def end(workers: list[psutil.Process]) -> None:
        assert {worker.environ()["CUDA_VISIBLE_DEVICES"] for worker in workers} == {"GPU-none,GPU-nor-this"}
        found.extend(workers)
        process.send_signal(signal.SIGTERM)

    end_at(project, process, 2, end)
    process.communicate(timeout=120)
    assert process.returncode == 143
    assert len(found) == 2
    assert not psutil.wait_procs(found, timeout=20)[1]
    (state,) = states_of(project)
    assert torch.load(state, weights_only=True)["step"] >= 2


def test_a_batch_that_can_not_be_shared_is_refused(project: Path) -> None:
    process = start(project, "two", 3, {"batch_size": 3})
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert errors.splitlines() == [
        "error: train.batch_size: is 3, which 2 processes can't share evenly; make it a multiple of 2"
    ]
