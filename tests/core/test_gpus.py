"""Runs side by side, on GPUs that this machine needn't have."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stages.core import gpus
from stages.core.errors import StageError
from stages.core.gpus import leased
from stages.encode import processes
from stages.train.launch import gpus_wanted
from tests.conftest import ROOT

UUIDS = ["GPU-aa", "GPU-bb", "GPU-cc"]
# A run: says which GPUs it has, holds them until it is told to end, and says how long it waited.
RUN = """
import os, sys, time
from pathlib import Path
from stages.core.gpus import leased
name, least, until = sys.argv[1:]
with leased(int(least)) as waited:
    Path(name + ".partial").write_text(os.environ["CUDA_VISIBLE_DEVICES"])
    Path(name + ".partial").rename(name)
    while not Path(until).exists():
        time.sleep(0.02)
    Path(name).unlink()
"""


@pytest.fixture(autouse=True)
def machine(in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A DVC project on a machine without GPUs, whose environment says nothing of any."""
    (in_folder / ".dvc").mkdir()
    for name in ("CUDA_VISIBLE_DEVICES", "DARKROOM_GPUS", "DARKROOM_LEASE", "DVC_ROOT", "RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(gpus, "driver_gpus", list)
    return in_folder


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    """Runs that end with the test, whatever becomes of it."""
    runs: list[subprocess.Popen[str]] = []
    yield runs
    for process in runs:
        process.kill()
        process.wait()
        assert process.stderr
        process.stderr.close()


def start(runs: list[subprocess.Popen[str]], name: str, least: int, known: str, until: str = "end") -> None:
    command = [sys.executable, "-c", RUN, name, str(least), until]
    environment = {**os.environ, "DARKROOM_GPUS": known, "PYTHONPATH": str(ROOT)}
    runs.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))


def wait_for(*names: str) -> None:
    end = time.monotonic() + 20
    while not all(Path(name).exists() for name in names):
        assert time.monotonic() < end, names
        time.sleep(0.02)


def test_each_run_has_its_own(started: list[subprocess.Popen[str]]) -> None:
    start(started, "a", 1, "0,1")
    start(started, "b", 1, "0,1")
    wait_for("a", "b")
    assert {Path("a").read_text(), Path("b").read_text()} == {"0", "1"}


def test_who_waits_goes_on_when_another_is_killed(started: list[subprocess.Popen[str]]) -> None:
    start(started, "first", 1, "0")
    wait_for("first")
    start(started, "second", 1, "0")
    assert started[1].stderr
    assert started[1].stderr.readline() == "waiting for 1 of 1 GPUs: other runs hold them\n"
    assert not Path("second").exists()
    started[0].send_signal(signal.SIGKILL)
    wait_for("second")
    assert Path("second").read_text() == "0"


def test_runs_that_want_two_neither_lock_each_other_out_nor_are_passed(started: list[subprocess.Popen[str]]) -> None:
    start(started, "one", 1, "0,1", until="one-ends")
    wait_for("one")
    start(started, "two", 2, "0,1", until="two-ends")
    assert started[1].stderr
    started[1].stderr.readline()  # it has GPU 1 and waits for GPU 0
    start(started, "late", 1, "0,1", until="late-ends")
    assert started[2].stderr
    started[2].stderr.readline()
    assert not Path("late").exists()
    Path("one-ends").touch()
    wait_for("two")
    assert (Path("two").read_text(), Path("late").exists()) == ("0,1", False)
    Path("two-ends").touch()
    wait_for("late")


def test_a_lease_is_seen_and_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "driver_gpus", lambda: UUIDS)
    for most, expected in ((1, "GPU-aa"), (2, "GPU-aa,GPU-bb"), (gpus.ALL, "GPU-aa,GPU-bb,GPU-cc")):
        with leased(1, most) as waited:
            assert os.environ["CUDA_VISIBLE_DEVICES"] == expected
            assert 0 <= waited < gpus.POLL
            with leased(3):  # as the processes do that a run starts
                assert os.environ["CUDA_VISIBLE_DEVICES"] == expected
        assert "CUDA_VISIBLE_DEVICES" not in os.environ


def test_nothing_happens_without_a_gpu_or_the_wish_for_one(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with leased(2) as waited:
        assert waited == 0
    monkeypatch.setattr(gpus, "driver_gpus", lambda: UUIDS)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with leased(1):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    with leased(0):
        assert "CUDA_VISIBLE_DEVICES" not in os.environ
    monkeypatch.setenv("RANK", "1")  # a launcher that shared them out
    with leased(1):
        assert "CUDA_VISIBLE_DEVICES" not in os.environ
    assert not (machine / ".dvc" / "tmp").exists()


def test_what_somebody_set_is_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "driver_gpus", lambda: UUIDS)
    monkeypatch.setenv("DARKROOM_GPUS", "0, 2")
    assert gpus.known_gpus() == {"0": "GPU-aa", "2": "GPU-cc"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-bb")
    assert gpus.known_gpus() == {"GPU-bb": "GPU-bb"}
    with leased(1):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-bb"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-bb"
    with pytest.raises(StageError, match=re.escape("GPUs: 2 are wanted and 1 are here (GPU-bb); ask for fewer")):
        leased(2).__enter__()


def test_a_number_and_a_uuid_are_one_gpu(started: list[subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    start(started, "worker", 1, "GPU-aa,GPU-bb")
    wait_for("worker")
    monkeypatch.setattr(gpus, "driver_gpus", lambda: UUIDS)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with leased(1):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "1"


@pytest.mark.parametrize(("name", "expected"), [("one", 1), ("cpu", 0), ("two", 2), ("fsdp", 2), ("two-hosts", 8)])
def test_train_wants_a_gpu_a_process(name: str, expected: int) -> None:
    assert gpus_wanted(ROOT / "compute" / f"{name}.yaml") == expected


@pytest.mark.parametrize(("said", "expected"), [("", (1, gpus.ALL)), ("2", (2, 2)), ("many", (1, gpus.ALL))])
def test_encode_wants_as_many_as_it_is_told(
    monkeypatch: pytest.MonkeyPatch, said: str, expected: tuple[int, int]
) -> None:
    monkeypatch.setenv("DARKROOM_ENCODERS", said)
    assert processes.gpus_wanted() == expected
