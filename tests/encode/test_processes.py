"""Two encoders write what one writes; what goes wrong in one of them ends all and is said in one line."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from stages.core.errors import StageError
from stages.encode import processes
from stages.encode.boomerang import origins_of
from stages.encode.params import EncodeParams
from stages.encode.posteriors import Posteriors
from stages.encode.processed import read_processed
from stages.encode.processes import encode_together, encoder_count
from tests.conftest import ROOT
from tests.encode.rows import in_turn, lay, numbered

SIZES = [(32, 32), (64, 32)]
PARAMS = EncodeParams.model_validate({"batch_size": 4, "boomerang": {"share": 0.4, "steps": 3, "least": 0, "most": 64}})


def processed_of(folder: Path, count: int) -> Path:
    return lay(folder, [numbered(number, SIZES[number % 2], f"caption {number}") for number in range(count)])


@pytest.mark.slow
def test_two_encoders_write_the_bytes_of_one(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures and captions are enough for two, the variants are not: those one makes alone."""
    processed = processed_of(tmp_path / "processed", 11)
    alone = in_turn(processed, base, tmp_path / "one", PARAMS)
    shutil.rmtree(tmp_path / ".dvc" / "tmp")
    monkeypatch.setenv("DARKROOM_ENCODERS", "2")
    started: list[tuple[str, int]] = []
    together = processes.encode_together

    def counting(kind: str, params: EncodeParams, base: Path, items: list[object], count: int) -> object:
        started.append((kind, len(items)))
        return together(kind, params, base, items, count)

    monkeypatch.setattr(processes, "encode_together", counting)
    assert in_turn(processed, base, tmp_path / "two", PARAMS) == alone
    assert started == [("pictures", 11), ("captions", 12)]


@pytest.mark.slow
def test_the_processes_leave_nothing_to_do_and_each_variant_is_made(base: Path, tmp_path: Path) -> None:
    """Variants are made by processes that meet in the pictures and captions of a run before."""
    processed = processed_of(tmp_path / "processed", 14)
    few = PARAMS.model_copy(update={"boomerang": PARAMS.boomerang.model_copy(update={"share": 0.1})})
    in_turn(processed, base, tmp_path / "few", few)
    posteriors = Posteriors(PARAMS, base)
    maker = processes.open_maker("variants", PARAMS, base)
    rows, pictures = read_processed(processed)
    missing = maker.missing(origins_of(rows, pictures, range(14)))
    assert sum(encode_together("variants", PARAMS, base, missing, 2)) == len(missing) > 8
    assert maker.missing(missing) == posteriors.missing(pictures) == []
    assert not [path for path in (tmp_path / ".dvc" / "tmp" / "darkroom" / "encode").iterdir() if path.is_dir()]


@pytest.mark.slow
def test_an_error_in_one_is_the_stages_own(base: Path, tmp_path: Path) -> None:
    _, pictures = read_processed(processed_of(tmp_path / "processed", 4))
    with pytest.raises(StageError, match=r"encode: picture 0\d has latents up to .* raise encode\.range"):
        list(encode_together("pictures", EncodeParams(range=1e-6), base, pictures, 2))


@pytest.mark.slow
def test_what_no_one_foresaw_is_shown(base: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    processed = processed_of(tmp_path / "processed", 4)
    _, pictures = read_processed(processed)
    shutil.rmtree(processed)
    with pytest.raises(StageError, match="a process ended with exit code 1"):
        list(encode_together("pictures", PARAMS, base, pictures, 2))
    assert "00000.parquet" in capfd.readouterr().err


ENDLESS = """
import sys, time
from pathlib import Path
from stages.core.stage import run_stage
from stages.encode.boomerang import origins_of
from stages.encode.params import EncodeParams
from stages.encode.processed import Picture
from stages.encode.processes import encode_together
def main(base: Path, out: Path) -> None:
    pictures = [Picture(f"{n}", Path("pipe"), n, 32, 32, f"{n}") for n in range(4)]
    out.write_text("started")
    list(encode_together("pictures", EncodeParams(), base, pictures, 2))
run_stage(main)
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_the_end_of_the_stage_is_the_end_of_all(base: Path, tmp_path: Path, how: signal.Signals) -> None:
    """Two processes wait at a pipe that nobody writes to, until the stage is told to stop, or dies."""
    os.mkfifo(tmp_path / "pipe")
    script = tmp_path / "endless.py"
    script.write_text(ENDLESS)
    command = [sys.executable, str(script), "--base", str(base), "--out", str(tmp_path / "out")]
    stage = subprocess.Popen(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)})
    encoders: list[psutil.Process] = []
    try:
        encoders += wait_for_two(stage)
        stage.send_signal(how)
        stage.wait(timeout=60)
        _, alive = psutil.wait_procs(encoders, timeout=60)
        assert not alive
    finally:
        for process in encoders:
            if process.is_running():
                process.kill()
        stage.kill()
        stage.wait()


def wait_for_two(stage: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The launcher and both encoders, when these have come to the pipe."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        below = psutil.Process(stage.pid).children(recursive=True)
        ready = [process for process in below if f"{processes.MODULE}" in process.cmdline()]
        if len(ready) == 3:
            time.sleep(5)
            return below
        time.sleep(0.2)
    raise AssertionError("the encoders did not start")


@pytest.mark.parametrize("wanted", ["0", "two", "-1", "1.5"])
def test_the_number_of_encoders_is_one_at_least(monkeypatch: pytest.MonkeyPatch, wanted: str) -> None:
    monkeypatch.setenv("DARKROOM_ENCODERS", wanted)
    with pytest.raises(StageError, match=f"DARKROOM_ENCODERS: is '{wanted}'; set it to a whole number from 1"):
        encoder_count()


def test_one_encoder_a_gpu_where_they_are_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    cards: list[str] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(cards))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: cards[number])
    monkeypatch.delenv("DARKROOM_ENCODERS", raising=False)
    assert encoder_count() == 1
    cards += ["A100"] * 4
    assert encoder_count() == 4
    monkeypatch.setenv("DARKROOM_ENCODERS", "5")
    with pytest.raises(StageError, match="a whole number from 1 to 4, as there are GPUs"):
        encoder_count()
    monkeypatch.delenv("DARKROOM_ENCODERS")
    cards[3] = "T4"
    assert encoder_count() == 1
