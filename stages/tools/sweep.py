"""Look for good params: python -m stages.tools.sweep KEY=RANGE [KEY=RANGE ...] [--trials N] [--jobs N] [--name NAME]

    python -m stages.tools.sweep train.learning_rate=log:1e-5:1e-3 clean.min_side=int:32:128 \
        merge.half.ratio=float:0:1 train.optimizer=choice:muon,adamw

Each trial is an experiment like any other (`dvc exp run --temp`; the workspace stays as it is). Optuna (Akiba et al.,
arXiv 1907.10902; extra `sweep`) chooses values by the validation loss of `trained`, lowest first; a trial whose
validation curve lies above the median of the others' at its step is given up. The study is kept below
.dvc/tmp/darkroom/sweep: the same command goes on with it, up to N trials in all.
"""

import argparse
import copy
import csv
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml
from dvc.api import DVCFileSystem
from filelock import FileLock, Timeout

from stages.check.sections import SECTION_TYPES
from stages.core.errors import StageError
from stages.core.files import scratch
from stages.core.params import Yaml12Loader, parse_section, read_params
from stages.core.stage import SHELLS

CURVE = Path("reports", "train", "plots", "metrics", "validation", "loss.tsv")  # dvclive writes it while `train` runs
STAGE = "train"
FIGURES, MODEL, FIGURE = "reports/evaluation.json", "trained", "loss"
POLL = 0.5  # seconds
SHOWN = 5


@dataclass(frozen=True)
class Range:
    """What a param may be: kind log, float, int (from low to high, both in it) or choice."""

    key: str
    kind: str
    low: float = 0.0
    high: float = 0.0
    choices: Sequence[Any] = field(default=())

    def ends(self) -> Sequence[Any]:
        """The values that have to be allowed for all to be."""
        return self.choices if self.kind == "choice" else (self.low, self.high)

    def suggest(self, trial: Any) -> Any:
        """Optuna's next value; of a float six digits, so that a person can repeat what a table shows."""
        match self.kind:
            case "choice":
                return trial.suggest_categorical(self.key, list(self.choices))
            case "int":
                return trial.suggest_int(self.key, self.low, self.high)
            case _:
                value = trial.suggest_float(self.key, self.low, self.high, log=self.kind == "log")
                return min(max(float(f"{value:.6g}"), self.low), self.high)

    def holds(self, value: Any) -> bool:
        """Whether a value is one of the range's."""
        if self.kind == "choice":
            return value in self.choices
        return isinstance(value, (int, float)) and self.low <= value <= self.high


def parse_range(word: str) -> Range:
    """KEY=RANGE. Raises StageError if it is none."""
    key, _, said = word.partition("=")
    kind, _, rest = said.partition(":")
    if key.count(".") and kind == "choice" and rest:
        choices = yaml.load(f"[{rest}]", Loader=Yaml12Loader)  # noqa: S506 - a SafeLoader: it makes plain values only
        return Range(key, kind, choices=tuple(choices))
    try:
        number = {"int": int, "float": float, "log": float}[kind]
        low, high = (number(end) for end in rest.split(":"))
    except (KeyError, ValueError):
        low, high = 0, 0
    if not key.count(".") or low >= high or (kind == "log" and low <= 0):
        advice = "write section.key=log:LOW:HIGH, float:LOW:HIGH, int:LOW:HIGH or choice:A,B"
        raise StageError("sweep", f"{word} is no range of a param", advice)
    return Range(key, kind, low, high)


def verify(ranges: Sequence[Range], params: Mapping[str, Any]) -> None:
    """Raises StageError where an end of a range, beside params.yaml's other values, is not allowed."""
    for each in ranges:
        name = each.key.partition(".")[0]
        if name not in SECTION_TYPES:
            raise StageError("sweep", f"{each.key} is in no section", f"choose of {', '.join(SECTION_TYPES)}")
        for value in each.ends():
            tree = {"params": copy.deepcopy(dict(params))}
            *parents, last = each.key.split(".")
            node = tree["params"]
            for parent in parents:
                node[parent] = node = node.get(parent) or {}
            node[last] = value
            parse_section(SECTION_TYPES[name], name, tree["params"][name])


def value_of(params: Mapping[str, Any], key: str) -> Any:
    """What params.yaml says, None if nothing."""
    node: Any = params
    for part in key.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    return node


def run_trial(trial: Any, ranges: Sequence[Range], folder: Path, name: str) -> float:
    """One experiment: its validation loss.

    Raises optuna.TrialPruned if it was given up, StageError if it failed.
    """
    import optuna

    values = {each.key: each.suggest(trial) for each in ranges}
    experiment, log = f"{name}-{trial.number}", folder / f"{trial.number}.log"
    command = [sys.executable, "-m", "dvc", "exp", "run", "--temp", "--name", experiment]
    for key, value in values.items():
        command += ["-S", f"++{key}={json.dumps(value)}"]
    said = ", ".join(f"{key}={value}" for key, value in values.items())
    with log.open("w") as file, subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT) as process:  # noqa: S603 - dvc with words that were checked
        try:
            step = follow(process, trial)
        finally:
            stop(process)
    if process.returncode and step is not None:
        print(f"{experiment}: given up after step {step} ({said})")
        raise optuna.TrialPruned
    if process.returncode:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")] or lines[-1:]
        print(f"{experiment}: failed ({said}): {' '.join(errors[:1])}")
        raise StageError(experiment, "failed", f"see {log}")
    figures = json.loads(DVCFileSystem(".", rev=experiment).read_text(FIGURES))
    loss = float(figures[MODEL][FIGURE])
    print(f"{experiment}: {loss:.5f} ({said})")
    return loss


def follow(process: subprocess.Popen[bytes], trial: Any) -> int | None:
    """Tell Optuna of the curve as it grows, until the process ends (None) or is to be given up (after which step)."""
    told: set[int] = set()
    while process.poll() is None:
        time.sleep(POLL)
        stage = stage_of(process.pid)
        if stage is None or stage[1] != STAGE:
            continue  # what another stage's folder holds may be an earlier run's curve
        for step, loss in read_curve(stage[2] / CURVE):
            if step not in told:
                told.add(step)
                trial.report(loss, step)
                if trial.should_prune():
                    return step
    return None


def stage_of(pid: int) -> tuple[psutil.Process, str, Path] | None:
    """The process of the stage that dvc runs, the stage's name and its workspace."""
    try:
        for child in psutil.Process(pid).children(recursive=True):
            stage = child.environ().get("DVC_STAGE")
            if stage and child.name() not in SHELLS:
                return child, stage, Path(child.cwd())
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        pass  # it ended meanwhile
    return None


def read_curve(path: Path) -> Iterator[tuple[int, float]]:
    """(step, loss) of the whole lines; nothing while the file isn't there."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return
    whole = text[: text.rfind("\n") + 1]
    for row in csv.DictReader(whole.splitlines(), delimiter="\t"):
        yield int(row["step"]), float(row["loss"])


def stop(process: subprocess.Popen[bytes]) -> None:
    """End what dvc runs by SIGTERM: a training saves its state, and dvc ends by itself and takes its workspace away."""
    told: set[int] = set()
    while process.poll() is None:
        stage = stage_of(process.pid)
        if stage and stage[0].pid not in told:
            told.add(stage[0].pid)
            stage[0].terminate()
        time.sleep(POLL / 5)


def open_study(ranges: Sequence[Range], params: Mapping[str, Any], folder: Path, name: str, seed: int) -> Any:
    """The study in the folder; a new one begins with the values of params.yaml, an old one with what was stopped.

    Raises StageError if it was made with other ranges.
    """
    import optuna
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        storage=optuna.storages.JournalStorage(JournalFileBackend(str(folder / "study.log"))),
        sampler=optuna.samplers.TPESampler(seed=seed),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4),
        study_name=name,
        direction="minimize",
        load_if_exists=True,
    )
    said = sorted(repr(each) for each in ranges)
    if study.user_attrs.get("ranges", said) != said:
        raise StageError("sweep", f"{name} was begun with other ranges", "say them, or take another --name")
    study.set_user_attr("ranges", said)
    for trial in study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.RUNNING]):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        study.enqueue_trial(trial.params)
    now = {each.key: value for each in ranges if each.holds(value := value_of(params, each.key))}
    if now and not study.trials:
        study.enqueue_trial(now)
    return study


def sweep(ranges: Sequence[Range], trials: int, jobs: int, name: str, seed: int) -> list[tuple[str, float]]:
    """Run what is missing of the trials; (experiment, loss) of all that came to their end, lowest first.

    Raises StageError before any work if a range can't be, and if another sweep of this name runs.
    """
    try:
        import optuna
    except ModuleNotFoundError:
        raise StageError("sweep", "Optuna isn't installed", "`make extras` installs it") from None
    params = read_params(Path("params.yaml"))
    verify(ranges, params)
    folder = scratch("sweep", name)
    try:
        with FileLock(folder / "lock", timeout=0):
            study = open_study(ranges, params, folder, name, seed)
            ended = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
            left = trials - len(study.get_trials(deepcopy=False, states=ended))
            if left > 0:
                study.optimize(
                    lambda trial: run_trial(trial, ranges, folder, name), left, n_jobs=jobs, catch=(StageError,)
                )
            done = study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.COMPLETE])
    except Timeout:
        raise StageError("sweep", f"{name} runs already", "wait for it, or take another --name") from None
    if not done:
        raise StageError("sweep", "no trial came to its end", f"see {folder}")
    return sorted(((f"{name}-{trial.number}", trial.value) for trial in done), key=lambda each: each[1])


def arguments() -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ranges", nargs="+", metavar="KEY=RANGE")
    parser.add_argument("--trials", type=int, default=20, help="in all; 20")
    parser.add_argument("--jobs", type=int, default=1, help="experiments at once; 1. Those on GPUs lease one each")
    parser.add_argument("--name", default="sweep", help="of the study, and the start of its experiments' names")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    """Sweep, then say which experiments were best."""
    given = arguments()
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    try:
        best = sweep([parse_range(word) for word in given.ranges], given.trials, given.jobs, given.name, given.seed)
    except StageError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("error: stopped; the same command goes on")
    print("\n".join(f"{loss:.5f}  dvc exp apply {experiment}" for experiment, loss in best[:SHOWN]))


if __name__ == "__main__":
    main()
