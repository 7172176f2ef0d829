"""Revisions side by side: commits, experiments and what lies here, read through DVC."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from stages.core.errors import StageError
from stages.tools import compare
from tests.conftest import commit, run
from tests.pictures import drawing


def write(project: Path, seed: int, loss: float, extractor: str = "classical", data: str = "aa") -> None:
    """One run's traces: two pictures, figures, a curve."""
    value = {"value": loss, "low": loss - 0.1, "high": loss + 0.1}
    figures = {
        "extractor": {"name": extractor, "sha256": extractor},
        "text": {"name": "clip"},
        "held_out": {"kid": 0.01},
        "models": {"trained": {"validation_loss": value}},
    }
    folder = project / "data" / "samples" / "trained"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    pictures = []
    for number in (0, 1):
        drawing(seed + number).save(folder / f"{number}.png")
        pictures.append({"file": f"{number}.png", "prompt": "a <b>", "seed": number})
    files: dict[str, Any] = {
        "data/samples/trained/samples.json": json.dumps({"pictures": pictures}),
        "reports/evaluation/figures.json": json.dumps(figures),
        "reports/train/plots/metrics/validation/loss.tsv": f"step\tloss\n0\t1.0\n5\t{loss}\n",
        "params.yaml": yaml.safe_dump({"train": {"seed": seed, "steps": 5, "lora": {"rank": 4}}}),
        "dvc.lock": yaml.safe_dump({"stages": {"preprocess": {"outs": [{"md5": data}]}}}),
    }
    for name, text in files.items():
        path = project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two commits whose pictures are DVC's, and a third state that isn't committed."""
    project = tmp_path_factory.mktemp("compare")
    run(project, "git", "init", "-q", "-b", "main")
    run(project, "dvc", "init", "-q")
    run(project, "dvc", "config", "core.analytics", "false")
    for tag, seed, loss in (("first", 1, 0.8), ("second", 3, 0.4)):
        write(project, seed, loss)
        run(project, "dvc", "add", "-q", "data/samples")
        commit(project, tag)
        run(project, "git", "tag", tag)
    write(project, 5, 0.3, data="bb")
    return project


def test_side_by_side(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    runs = [compare.read_run(name, "trained") for name in ("first", "second", "workspace")]
    assert compare.differing(runs) == [("train.seed", ["1", "3", "5"])]
    assert len({picture for each in runs for picture in each.samples.values()}) == 6
    page = compare.page(runs[:2], "trained")
    assert "a &lt;b&gt;" in page
    assert "They don't share" not in page
    assert page.count("data:image/png") == 4
    assert "They don't share" in compare.page(runs, "trained")


def test_params_are_read_as_dvc_writes_them(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`dvc exp run -S` writes numbers and words of YAML 1.2: 5e-4 is a number there, and no is a word."""
    monkeypatch.chdir(project)
    kept = Path("params.yaml").read_text()
    Path("params.yaml").write_text("train: {seed: 1, steps: 5e+0, lora: {rank: 4}, precision: no}")
    try:
        run = compare.read_run("workspace", "trained")
    finally:
        Path("params.yaml").write_text(kept)
    assert run.params["train"] == {"seed": 1, "steps": 5.0, "lora": {"rank": 4}, "precision": "no"}


def test_the_program_writes_a_page(project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(project)
    monkeypatch.setattr(sys, "argv", ["compare", "first", "second", "first", "--out", str(tmp_path / "page.html")])
    compare.main()
    assert "of 2 revisions" in (tmp_path / "page.html").read_text()


def test_what_can_not_be_compared_is_refused(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    first = compare.read_run("first", "trained")
    with pytest.raises(StageError, match="is no revision"):
        compare.read_run("third", "trained")
    with pytest.raises(StageError, match="has no model half; choose of trained"):
        compare.read_run("first", "half")
    write(project, 5, 0.3, extractor="vae")
    with pytest.raises(StageError, match="measured with vae, first with classical"):
        compare.page([first, compare.read_run("workspace", "trained")], "trained")
    (project / "reports" / "evaluation" / "figures.json").unlink()
    with pytest.raises(StageError, match=r"figures.json isn't there \(FileNotFoundError\)"):
        compare.read_run("workspace", "trained")


def test_params_by_their_full_names() -> None:
    assert compare.flat({"a": {"b": [1], "c": {}}, "d": None}) == {"a.b": "[1]", "a.c": "{}", "d": "null"}
