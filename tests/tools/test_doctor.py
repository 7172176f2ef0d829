"""A line each: well, or what to do. Each look is shown a fault."""

import shutil
import subprocess
from pathlib import Path

import pytest

from stages.tools import doctor
from tests.conftest import ROOT


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """An empty DVC project with this one's params."""
    for name in ("params.yaml", "requirements.lock", ".dvcignore"):
        shutil.copy(ROOT / name, tmp_path)
    subprocess.run(["dvc", "init", "-q", "--no-scm"], cwd=tmp_path, check=True)
    return tmp_path


def test_this_project_is_well() -> None:
    for look in (doctor.look_at_python, doctor.look_at_torch, doctor.look_at_ignored, doctor.look_at_params):
        assert not look(ROOT).do, look(ROOT).line()
    assert doctor.look_at_hub(ROOT).what == "not needed"


def test_faults_are_found(project: Path) -> None:
    assert not doctor.look_at_params(project).do
    (project / "params.yaml").write_text("train: {stepz: 1}\n")
    assert "did you mean steps" in doctor.look_at_params(project).do
    assert not doctor.look_at_ignored(project).do
    (project / ".dvcignore").write_text("*.partial\n")
    assert "add it" in doctor.look_at_ignored(project).do
    (project / "requirements.lock").write_text("torch==1.0\n")
    assert "1.0" in doctor.look_at_torch(project).do


def test_links_are_tried(project: Path) -> None:
    subprocess.run(["dvc", "config", "cache.type", "hardlink,copy"], cwd=project, check=True)
    assert doctor.look_at_links(project).what.startswith("hardlink")
    subprocess.run(["dvc", "config", "cache.type", "copy"], cwd=project, check=True)
    assert doctor.look_at_links(project).do


def test_remote_is_reached_or_not(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert not doctor.look_at_remote(project).do
    place = tmp_path_factory.mktemp("remote")
    subprocess.run(["dvc", "remote", "add", "-q", "-d", "shared", str(place)], cwd=project, check=True)
    assert doctor.look_at_remote(project).what == "shared, reached"
    subprocess.run(
        ["dvc", "remote", "add", "-q", "-d", "-f", "shared", "http://127.0.0.1:9/x"], cwd=project, check=True
    )
    assert doctor.look_at_remote(project).do


def test_hub_is_asked_only_where_params_name_it(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (project / "params.yaml").read_text().replace("model: tiny-sd", f"model: hub:a/b@{'0' * 40}", 1)
    (project / "params.yaml").write_text(text)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    found = doctor.look_at_hub(project)
    assert "a/b" in found.do
    assert "can't be reached" in found.what


def test_deps_are_looked_at_by_the_house(project: Path) -> None:
    (project / "tests").mkdir()
    (project / "tests" / "test_house.py").write_text("def test_deps_equal_imports():\n    assert not ['lacks x']\n")
    assert "lacks x" in doctor.look_at_deps(project).what


def test_main_counts_what_is_to_be_done(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    looks = (lambda _root: doctor.Finding("a", "well"), lambda _root: doctor.Finding("b", "ill", "rest"))
    monkeypatch.setattr(doctor, "LOOKS", looks)
    assert doctor.main(ROOT) == 1
    assert capsys.readouterr().out.splitlines() == ["ok  a         well", "do  b         ill: rest"]
