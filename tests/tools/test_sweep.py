"""A sweep over experiments: what is tried, what is given up, and how it goes on."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from stages.core.errors import StageError
from stages.core.files import scratch
from stages.tools import sweep
from stages.tools.sweep import Range, parse_range
from tests.conftest import ROOT, run
from tests.toy import PARAMS, make_toy

RATE = Range("train.learning_rate", "log", 1e-5, 0.1)


def test_ranges_are_read() -> None:
    assert parse_range("train.learning_rate=log:1e-5:1e-1") == RATE
    assert parse_range("clean.min_side=int:32:128") == Range("clean.min_side", "int", 32, 128)
    assert parse_range("train.ema_decay=float:0:0.5") == Range("train.ema_decay", "float", 0, 0.5)
    found = parse_range("train.optimizer=choice:muon,1e-3,true,null")
    assert found == Range("train.optimizer", "choice", choices=("muon", 1e-3, True, None))


@pytest.mark.parametrize(
    "word",
    ["train.steps", "train=int:1:2", "a.b=int:2:1", "a.b=int:1:1.5", "a.b=log:0:1", "a.b=choice:", "a.b=around:1:2"],
)
def test_what_is_no_range_is_refused(word: str) -> None:
    with pytest.raises(StageError, match=r"is no range of a param; write section\.key=log:LOW:HIGH"):
        parse_range(word)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("train.learning_rate=log:1e-3:7", "train.learning_rate is 7.0, but input should be less than"),
        ("train.learning_rat=log:1e-3:1", "did you mean learning_rate"),
        ("clean.captions.min_words=int:-1:3", "clean.captions.min_words is -1"),
        ("train.optimizer=choice:muon,adam", "train.optimizer"),
        ("trains.steps=int:1:2", "trains.steps is in no section; choose of base, "),
        ("merge.soft.method=choice:ties,stirring", "merge.soft"),
    ],
)
def test_what_params_refuse_is_refused_before_any_work(word: str, said: str) -> None:
    with pytest.raises(StageError, match=re.escape(said)):
        sweep.verify([parse_range(word)], PARAMS)


def test_allowed_ranges_change_no_params() -> None:
    before = repr(PARAMS)
    sweep.verify([RATE, parse_range("clean.captions.min_words=int:1:3")], PARAMS)
    assert repr(PARAMS) == before
    assert RATE.holds(sweep.value_of(PARAMS, RATE.key))
    assert not RATE.holds(sweep.value_of(PARAMS, "train.seed"))


def test_floats_have_digits_that_a_person_can_repeat() -> None:
    class Draws:
        def suggest_float(self, key: str, low: float, high: float, log: bool) -> float:
            return low + (high - low) / 3

    assert RATE.suggest(Draws()) == 0.03334
    assert Range("a.b", "float", 0.12345678, 0.12345679).suggest(Draws()) == 0.12345679, "and stay in the range"


def test_half_a_line_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "loss.tsv"
    assert not list(sweep.read_curve(path))
    path.write_text("step\tloss\n0\t1.0\n40\t0.5\n80\t0.")
    assert list(sweep.read_curve(path)) == [(0, 1.0), (40, 0.5)]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("optuna", reason="Optuna isn't installed: make extras")
    return make_toy(tmp_path_factory.mktemp("sweep"))


@pytest.fixture
def here(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(project)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{ROOT}", prepend=":")
    monkeypatch.setattr(sweep, "POLL", 0.05)
    return project


def experiments(project: Path) -> list[str]:
    return run(project, "dvc", "exp", "list", "--name-only").stdout.split()


@pytest.mark.slow
def test_a_sweep_over_data_and_training_goes_on_where_it_ended(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ranges = [RATE, Range("clean.min_side", "int", 32, 128)]
    assert sweep.sweep(ranges, 1, 1, "both", 0) == [("both-0", 1.0)], "params.yaml's own values come first"
    best = sweep.sweep(ranges, 3, 2, "both", 0)
    assert {name for name, _ in best} == {"both-0", "both-1", "both-2"}
    assert best == sorted(best, key=lambda each: each[1])
    assert sweep.sweep(ranges, 3, 1, "both", 0) == best
    assert set(experiments(here)) >= {"both-0", "both-1", "both-2"}
    assert not run(here, "git", "status", "--short").stdout, "the workspace stays as it was"
    run(here, "dvc", "exp", "apply", best[0][0])
    assert f'"loss": {best[0][1]}' in (here / "reports" / "evaluation.json").read_text()
    run(here, "git", "checkout", "-q", "-f", "main", "--", ".")
    with pytest.raises(StageError, match="both was begun with other ranges"):
        sweep.sweep([RATE], 3, 1, "both", 0)
    assert "both-0: 1.00000 (train.learning_rate=0.01, clean.min_side=64)" in capfd.readouterr().out


def curves(study: Any, count: int) -> None:
    """Trials that learned well, as if they had run."""
    import optuna

    rates = {RATE.key: optuna.distributions.FloatDistribution(RATE.low, RATE.high, log=True)}
    for _ in range(count):
        study.add_trial(
            optuna.trial.create_trial(
                params={RATE.key: 1e-3},
                distributions=rates,
                value=0.1,
                intermediate_values={step: 0.1 + 1 / (step + 1) for step in range(100)},
            )
        )


@pytest.mark.slow
def test_a_trial_that_is_behind_is_given_up_politely(
    here: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TOY_SECONDS", "0.5")
    params = {"train": {"learning_rate": 0.1, "steps": 50}}
    folder = scratch("sweep", "behind")
    study = sweep.open_study([RATE], params, folder, "behind", 0)
    curves(study, 4)
    before = run(here, "git", "status", "--short").stdout
    (here / "params.yaml").write_text("clean: {min_side: 64}\ntrain: {learning_rate: 0.1, steps: 50}\n")
    study.optimize(lambda trial: sweep.run_trial(trial, [RATE], folder, "behind"), 1)
    run(here, "git", "checkout", "-q", "-f", "main", "--", ".")
    assert study.trials[0].state.name == "PRUNED"
    assert 0 < len(study.trials[0].intermediate_values) < 10
    assert re.search(r"behind-\d+: given up after step \d ", capfd.readouterr().out)
    assert not [name for name in experiments(here) if name.startswith("behind")]
    assert not list((here / ".dvc" / "tmp" / "exps").glob("tmp*")), "dvc takes its workspace away"
    assert not [child for child in psutil.Process().children(recursive=True) if "toy.py" in " ".join(child.cmdline())]
    assert run(here, "git", "status", "--short").stdout == before


@pytest.mark.slow
def test_what_was_stopped_comes_next_and_what_fails_is_said(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = scratch("sweep", "stopped")
    stopped = sweep.open_study([RATE], PARAMS, folder, "stopped", 0)
    RATE.suggest(trial := stopped.ask())
    again = sweep.open_study([RATE], PARAMS, folder, "stopped", 0)
    assert [each.state.name for each in again.trials] == ["FAIL", "WAITING"]
    assert RATE.suggest(again.ask()) == trial.params[RATE.key] == 0.01
    (here / "toy.py").write_text("import sys\nsys.exit('error: out of paint')\n")
    with pytest.raises(StageError, match="no trial came to its end"):
        sweep.sweep([Range(RATE.key, "log", 1e-5, 1e-4)], 1, 1, "failing", 0)
    run(here, "git", "checkout", "-q", "-f", "main", "--", ".")
    assert re.search(r"failing-0: failed \(.*\): out of paint", capfd.readouterr().out)


def test_the_program_says_what_is_wrong(in_folder: Path) -> None:
    command = [sys.executable, "-m", "stages.tools.sweep", "a.b=c"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert told.returncode == 1
    assert told.stderr.startswith("error: sweep: a.b=c is no range of a param; ")
    assert len(told.stderr.splitlines()) == 1
