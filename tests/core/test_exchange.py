"""Files that machines exchange by their content."""

import os
from pathlib import Path

import pytest

from stages.core.errors import StageError
from stages.core.exchange import Exchange, Files, take, work_apart


def copy(into: Path, path: Path) -> str:
    """Copies a file; says where."""
    into.mkdir()
    (into / path.name).write_bytes(path.read_bytes() + Path("models/weights").read_bytes())
    return str(Path.cwd())


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for a bucket, beside a project that is the current folder."""
    project = tmp_path / "project"
    (project / "raw").mkdir(parents=True)
    (project / "models").mkdir()
    (project / "models" / "weights").write_bytes(b"weights")
    (project / "raw" / "0.parquet").write_bytes(b"pictures")
    monkeypatch.chdir(project)
    (tmp_path / "store").mkdir()
    return tmp_path / "store"


def test_a_task_has_its_files_elsewhere_and_what_it_writes_comes_back(store: Path) -> None:
    exchange, project = Exchange(store.as_uri()), Path.cwd()
    files = Files[Path](
        lambda path: [path], lambda path: [Path("out", path.name), Path("out", "none")], [Path("models")]
    )
    common = exchange.put(files.common)
    parcel = exchange.parcel(files, common, Path("raw/0.parquet"))
    assert set(parcel.common) == {"models/weights"}
    assert set(parcel.reads) == {"raw/0.parquet"}
    for _ in range(2):  # the second time what is common lies there
        where, written = work_apart(parcel, lambda path: copy(Path("out"), path), Path("raw/0.parquet"))
        assert Path(where) != project
        assert not Path(where).exists()
    assert set(written) == {"out/0.parquet"}
    os.chdir(project)
    assert not Path("out").exists()
    take(exchange, written)
    assert Path("out/0.parquet").read_bytes() == b"picturesweights"
    assert not list(project.rglob("*.partial"))


def test_the_same_content_goes_up_once(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exchange = Exchange(store.as_uri())
    first = exchange.put([Path("raw")])
    held = {path: path.stat().st_mtime_ns for path in store.rglob("*") if path.is_file()}
    assert len(held) == 1
    Path("raw/again.parquet").write_bytes(b"pictures")
    second = exchange.put([Path("raw"), Path("absent")])
    assert set(second) == {"raw/0.parquet", "raw/again.parquet"}
    assert set(second.values()) == set(first.values())
    assert {path: path.stat().st_mtime_ns for path in store.rglob("*") if path.is_file()} == held


def test_what_was_changed_there_is_refused(store: Path) -> None:
    exchange = Exchange(store.as_uri())
    sent = exchange.put([Path("raw/0.parquet")])
    (held,) = (path for path in store.rglob("*") if path.is_file())
    held.write_bytes(b"other")
    with pytest.raises(StageError, match="is not what was sent; delete it, run again"):
        take(exchange, sent)
    held.unlink()
    with pytest.raises(StageError, match="DARKROOM_EXCHANGE: file:"):
        take(exchange, sent)
    assert Path("raw/0.parquet").read_bytes() == b"pictures"
    assert not list(Path().rglob("*.partial"))


def test_a_store_that_no_library_knows() -> None:
    with pytest.raises(StageError, match="DARKROOM_EXCHANGE: gopher://x can't be opened"):
        Exchange("gopher://x")
