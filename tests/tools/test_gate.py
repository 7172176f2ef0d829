"""What a pull request has to show, asked in a clone that has no data."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT, commit, run
from tests.toy import make_toy

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose team has a remote, which has all."""
    project = make_toy(tmp_path_factory.mktemp("gate"))
    run(project, "dvc", "remote", "add", "-d", "team", str(project.parent / "remote"))
    run(project, "dvc", "push", "-q")
    commit(project, "A remote")
    return project


@pytest.fixture
def clone(origin: Path, tmp_path: Path) -> Path:
    run(tmp_path, "git", "clone", "-q", str(origin), "clone")
    return tmp_path / "clone"


def gate(project: Path) -> tuple[int, list[list[str]]]:
    """The exit code; of each line the verdict, the question and the words."""
    told = subprocess.run(
        [sys.executable, "-m", "stages.tools.gate"],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not told.stderr
    return told.returncode, [line.split(maxsplit=2) for line in told.stdout.splitlines()]


def test_what_is_whole_passes_without_data(clone: Path) -> None:
    assert gate(clone) == (
        0,
        [
            ["ok", "results", "dvc.lock holds those of this code and these params"],
            ["ok", "remote", "team has all that dvc.lock names"],
        ],
    )
    assert not (clone / "models").exists(), "nothing is fetched for it"
    assert not run(clone, "git", "status", "--short").stdout


def test_params_without_their_results_do_not_pass(clone: Path) -> None:
    params = yaml.safe_load((clone / "params.yaml").read_text())
    params["train"]["learning_rate"] = 0.5
    (clone / "params.yaml").write_text(yaml.safe_dump(params))
    code, lines = gate(clone)
    assert (code, lines[0]) == (1, ["fail", "results", lines[0][2]])
    assert lines[0][2].startswith("train would run: `dvc repro`")
    assert lines[1][0] == "ok"


def test_results_that_were_not_pushed_do_not_pass(clone: Path, origin: Path) -> None:
    remote = origin.parent / "remote"
    aside = remote.rename(remote.with_name("aside"))
    try:
        code, lines = gate(clone)
    finally:
        shutil.rmtree(remote, ignore_errors=True)
        aside.rename(remote)
    assert (code, lines[0][0], lines[1][0]) == (1, "ok", "fail")
    assert lines[1][2].startswith("team lacks data/clean.txt, ")
    assert lines[1][2].endswith("`dvc push`")


def test_a_project_without_a_remote_is_told_so(clone: Path) -> None:
    run(clone, "dvc", "remote", "remove", "team")
    code, lines = gate(clone)
    assert (code, lines[1][:2]) == (0, ["skip", "remote"])


def test_what_dvc_refuses_does_not_pass(clone: Path) -> None:
    (clone / "dvc.yaml").write_text("stages: {train: {outs: [x]}}\n")
    code, lines = gate(clone)
    assert code == 1
    assert lines[0][:2] == ["fail", "results"]
    assert "dvc.yaml" in lines[0][2]
