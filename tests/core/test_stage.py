"""How a stage starts and ends."""

import contextlib
import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from stages.core.errors import StageError
from stages.core.stage import run_stage
from stages.core.times import TIMES, read_times
from stages.merge.params import MergeParams
from tests.conftest import ROOT


def start(monkeypatch: pytest.MonkeyPatch, main: object, *arguments: str) -> int:
    """Run `main` as a stage would be; give back its exit code."""
    monkeypatch.setattr(sys, "argv", ["stage", *arguments])
    handler = signal.getsignal(signal.SIGTERM)
    try:
        run_stage(main)  # type: ignore[arg-type]  # any function of the right shape
    except SystemExit as ended:
        return int(ended.code or 0)
    finally:
        signal.signal(signal.SIGTERM, handler)
    return 0


def test_arguments_are_mains_own(in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (in_folder / "params.yaml").write_text("merge: {x: {ratio: 0.25}}\n")
    seen: dict[str, object] = {}

    def main(params: MergeParams, recipe: str, data_raw: Path) -> None:
        seen.update(ratio=params.root[recipe].ratio, raw=data_raw)

    assert start(monkeypatch, main, "--recipe", "x", "--data-raw", "data/raw") == 0
    assert seen == {"ratio": 0.25, "raw": Path("data/raw")}


def test_errors_are_one_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def fails(out: Path) -> None:
        raise StageError(f"{out}", "is full of sand", "sweep it")

    def missing(out: Path) -> None:
        out.read_bytes()

    assert start(monkeypatch, fails, "--out", "box") == 1
    assert capfd.readouterr().err == "error: box: is full of sand; sweep it\n"
    assert start(monkeypatch, missing, "--out", str(tmp_path / "gone")) == 1
    assert capfd.readouterr().err.startswith(f"error: {tmp_path / 'gone'}: is missing; `dvc repro` makes it")


def test_a_full_disk_is_said(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def main(out: Path) -> None:
        with out.open("w") as file:
            file.write("x" * 100_000)

    assert start(monkeypatch, main, "--out", "/dev/full") == 1
    assert "the disk is full" in capfd.readouterr().err


def test_garbage_is_looked_for_from_the_start_of_a_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    """And never among what libraries made while they loaded."""
    seen: list[bool] = []

    def main(number: int) -> None:
        seen.append(gc.isenabled())

    gc.disable()
    try:
        assert start(monkeypatch, main, "--number", "3") == 0
        assert seen == [True]
        assert gc.get_freeze_count() > 0
    finally:
        gc.enable()
        gc.unfreeze()


SLEEPER = """
import time
from pathlib import Path
from stages.core.stage import run_stage
def main(out: Path) -> None:
    try:
        out.write_text("started")
        time.sleep(60)
    finally:
        out.write_text("unwound")
run_stage(main)
"""


def wait_for(condition: object, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]  # a function without arguments
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


@pytest.mark.parametrize("shell", ["", "sh -c"], ids=["direct", "through a shell"])
def test_a_stage_ends_with_its_dvc(tmp_path: Path, shell: str) -> None:
    """DVC doesn't pass SIGTERM on: a stage notices that its parent is gone, and unwinds."""
    script, out = tmp_path / "sleeper.py", tmp_path / "out"
    script.write_text(SLEEPER)
    command = f"{sys.executable} {script} --out {out}"
    inner = f"sh -c '{command}; true'" if shell else command
    parent = subprocess.Popen(
        [sys.executable, "-c", f"import subprocess, shlex; subprocess.run(shlex.split({inner!r}))"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "DVC_STAGE": "sleeper"},
    )
    wait_for(out.exists)
    stage = next(p for p in psutil.Process(parent.pid).children(recursive=True) if str(script) in p.cmdline())
    parent.terminate()
    parent.wait()
    wait_for(lambda: not stage.is_running() or stage.status() == psutil.STATUS_ZOMBIE)
    assert out.read_text() == "unwound"


def test_by_hand_a_stage_outlives_its_parent(tmp_path: Path) -> None:
    """`nohup python -m stages.train.run` goes on when the terminal is closed."""
    script, out = tmp_path / "sleeper.py", tmp_path / "out"
    script.write_text(SLEEPER.replace("60", "3"))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("DVC_STAGE", None)
    inner = [sys.executable, str(script), "--out", str(out)]
    parent = subprocess.Popen([sys.executable, "-c", f"import subprocess; subprocess.run({inner!r})"], env=environment)
    wait_for(out.exists)
    parent.kill()
    parent.wait()
    time.sleep(2)
    assert out.read_text() == "started"
    wait_for(lambda: out.read_text() == "unwound")


def test_what_a_stage_waited_for_is_no_time_of_its_own(in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_STAGE", "draw")
    monkeypatch.delenv("RANK", raising=False)
    held = []

    @contextlib.contextmanager
    def lease(number: int) -> Iterator[float]:
        held.append(number)
        yield 1e6
        held.append(0)

    def main(number: int) -> None:
        assert held == [number]

    monkeypatch.setattr(sys, "argv", ["stage", "--number", "3"])
    handler = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("stages.core.stage._follow_dvc", lambda: None)
    run_stage(main, lease)
    signal.signal(signal.SIGTERM, handler)
    assert held == [3, 0]
    assert read_times(TIMES)["draw"]["seconds"] < 0
