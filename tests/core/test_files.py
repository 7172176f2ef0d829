"""Outputs are whole or not there."""

from pathlib import Path

import pytest

from stages.core.errors import StageError
from stages.core.files import folder_digest, replacing, scratch, write_json


def test_a_failed_write_leaves_the_old_output(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "old").write_text("old")

    def fail() -> None:
        with replacing(out) as folder:
            (folder / "new").write_text("new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "old"]


def test_a_finished_write_replaces_all_of_it(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for name in ("first", "second"):
        with replacing(out) as folder:
            (folder / name).write_text(name)
    assert [path.name for path in out.iterdir()] == ["second"]


def test_leftovers_of_a_killed_run_are_cleared(tmp_path: Path) -> None:
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "half").write_text("half")
    with replacing(tmp_path / "out") as folder:
        assert not list(folder.iterdir())


def test_json_refuses_what_no_reader_takes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert not list(tmp_path.iterdir())


def test_folder_digest_sees_names_and_bytes_only(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "sub" / "x.py").write_text("1")
    same = folder_digest(tmp_path / "a")
    assert same == folder_digest(tmp_path / "b")
    (tmp_path / "b" / "sub" / "__pycache__").mkdir()
    (tmp_path / "b" / "sub" / "__pycache__" / "x.pyc").write_text("2")
    assert same == folder_digest(tmp_path / "b")
    (tmp_path / "b" / "sub" / "x.py").rename(tmp_path / "b" / "sub" / "y.py")
    assert same != folder_digest(tmp_path / "b")


def test_scratch_lies_where_it_is_told(in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StageError, match="is no DVC project"):
        scratch("inspect")
    (in_folder / ".dvc").mkdir()
    assert scratch("inspect").resolve() == in_folder / ".dvc" / "tmp" / "darkroom" / "inspect"
    monkeypatch.setenv("DARKROOM_SCRATCH", str(in_folder / "fast"))
    here = scratch("inspect")
    assert here.is_dir()
    assert here.is_relative_to(in_folder / "fast")
    assert scratch("inspect") == here
    monkeypatch.setenv("DVC_ROOT", str(in_folder / "other"))
    assert scratch("inspect") != here, "another project's"
