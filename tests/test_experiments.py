"""What the guide says of experiments, by DVC itself, with stages that take no time."""

import json
from pathlib import Path

import pytest

from tests.conftest import ROOT, run
from tests.toy import edit, loss_of, make_toy

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_toy(tmp_path_factory.mktemp("experiments"))


@pytest.fixture
def project(origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone with its results; what its stages do goes to ran.txt beside it."""
    run(tmp_path, "git", "clone", "-q", str(origin), "project")
    project = tmp_path / "project"
    for name in ("name", "email"):
        run(project, "git", "config", f"user.{name}", "test")
    run(project, "dvc", "remote", "add", "--local", "-d", "origin", str(origin / ".dvc" / "cache"))
    run(project, "dvc", "pull", "-q")
    run(project, "dvc", "config", "--local", "core.remote", "origin")
    monkeypatch.setenv("TOY_LOG", str(tmp_path / "ran.txt"))
    return project


def ran(project: Path) -> list[str]:
    """What the stages said since this was last asked."""
    path = project.parent / "ran.txt"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    path.unlink(missing_ok=True)
    return lines


def experiments(project: Path) -> dict[str, tuple[float, float]]:
    """name -> (learning rate, smallest side) of each that DVC shows."""
    rows = json.loads(run(project, "dvc", "exp", "show", "--json").stdout)
    found = {}
    for row in rows:
        for experiment in row["experiments"] or []:
            for revision in experiment["revs"]:
                params = revision["data"]["params"]["params.yaml"]["data"]
                found[revision["name"]] = (params["train"]["learning_rate"], params["clean"]["min_side"])
    return found


def test_an_experiment_runs_what_it_touches_and_is_applied(project: Path) -> None:
    run(project, "dvc", "exp", "run", "-n", "slow", "-S", "train.learning_rate=1e-5")
    assert ran(project) == ["train", "evaluate"]
    assert loss_of(project) == 4.0
    run(project, "dvc", "exp", "run", "-n", "small", "-S", "train.learning_rate=0.01", "-S", "clean.min_side=32")
    assert ran(project) == ["clean", "train", "evaluate"]
    assert experiments(project) == {"slow": (1e-5, 64), "small": (0.01, 32)}
    assert "train.learning_rate" in run(project, "dvc", "exp", "diff", "slow", "small").stdout
    run(project, "dvc", "exp", "apply", "slow")
    assert "1e-05" in (project / "params.yaml").read_text()
    run(project, "dvc", "repro")
    assert not ran(project)
    run(project, "dvc", "exp", "branch", "slow", "a-slower-rate")
    assert "1e-05" in run(project, "git", "show", "a-slower-rate:params.yaml").stdout


def test_ranges_over_data_and_training_by_two_workers_that_share_no_gpu(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("TOY_LEASES", "yes"), ("TOY_SECONDS", "0.4"), ("DARKROOM_GPUS", "0"), ("PYTHONPATH", ROOT)):
        monkeypatch.setenv(name, str(value))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    edits = ["-S", "train.learning_rate=0.1,0.001", "-S", "clean.min_side=range(32,34)"]
    run(project, "dvc", "exp", "run", "--queue", *edits)
    assert not ran(project)
    run(project, "dvc", "exp", "run", "--run-all", "--jobs", "2")
    assert sorted(experiments(project).values()) == [(0.001, 32), (0.001, 33), (0.1, 32), (0.1, 33)]
    lines = ran(project)
    assert lines.count("train") == 4
    assert [line for line in lines if line.startswith(("takes", "leaves"))] == ["takes 0", "leaves 0"] * 4
    assert not run(project, "git", "status", "--short").stdout


def test_a_temporary_one_leaves_the_workspace_alone(project: Path) -> None:
    edit(project, "train.steps", 3)
    run(project, "dvc", "exp", "run", "--temp", "-n", "aside", "-S", "clean.min_side=40")
    assert experiments(project) == {"aside": (0.01, 40)}
    assert "min_side: 64" in (project / "params.yaml").read_text()
    assert run(project, "git", "status", "--short").stdout == " M params.yaml\n"


def test_an_experiment_goes_to_a_colleague(project: Path, tmp_path: Path) -> None:
    run(tmp_path, "git", "init", "-q", "--bare", "-b", "main", "hub.git")
    run(project, "git", "remote", "add", "hub", str(tmp_path / "hub.git"))
    run(project, "git", "push", "-q", "hub", "main")
    run(project, "dvc", "remote", "add", "--local", "-d", "-f", "team", str(tmp_path / "team"))
    run(project, "dvc", "exp", "run", "-n", "bold", "-S", "train.learning_rate=0.1")
    run(project, "dvc", "exp", "push", "hub", "bold")
    run(tmp_path, "git", "clone", "-q", str(tmp_path / "hub.git"), "colleague")
    colleague = tmp_path / "colleague"
    run(colleague, "dvc", "remote", "add", "--local", "-d", "team", str(tmp_path / "team"))
    assert "bold" in run(colleague, "dvc", "exp", "list", "origin").stdout
    ran(project)
    run(colleague, "dvc", "exp", "pull", "origin", "bold")
    run(colleague, "dvc", "exp", "apply", "bold")
    assert loss_of(colleague) == 4.0
    run(colleague, "dvc", "repro")
    assert not ran(project)
