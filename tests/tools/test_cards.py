"""Cards say what was read, and let no text be more than a text."""

import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

from stages.report.filling import cell
from stages.tools import cards
from tests.report.making import EVIL, make_world, write_json


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run's traces where a project has them."""
    paths = make_world(tmp_path / "made")
    for name, place in (
        ("clean", "data/clean"),
        ("samples", "data/samples"),
        ("evaluation", "reports/evaluation"),
        ("base", "models/base"),
        ("trained", "models/trained"),
        ("merged", "models/merged"),
    ):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        paths[name].rename(tmp_path / place)
    paths["collected"].rename(tmp_path / "reports" / "collect.json")
    for folder in ("models/base", "models/trained", "models/merged/half"):
        write_json(tmp_path / folder / "model_index.json", {"_class_name": "StableDiffusionPipeline"})
    Image.new("RGB", (8, 8)).save(tmp_path / "data" / "samples" / "trained" / "grid.png")
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump({"stages": {"clean": {"outs": [{"md5": "abc.dir"}]}}}))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_cards_say_what_was_read(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["cards"])
    cards.main()
    model, data = ((project / "cards" / name).read_text() for name in ("model.md", "data.md"))
    for text in ("license: cc0-1.0", "full, 4 steps of 2", "0.5 (0.4 to 0.6)", "StableDiffusionPipeline", '"steps": 4'):
        assert text in model
    for text in (
        "8 pictures with captions, of 12",
        "| duplicate | looks like another picture | 4 |",
        "`abc.dir`",
        "CC0",
    ):
        assert text in data
    assert (project / "cards" / "samples.png").is_file()
    assert EVIL not in model + data
    assert yaml.safe_load(model.split("---")[1])["library_name"] == "diffusers"


def test_what_is_missing_is_said_and_nothing_is_written(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["cards", "--model", "other"])
    with pytest.raises(SystemExit, match="no model is named other; use base, trained, half"):
        cards.main()
    (project / "reports" / "collect.json").unlink()
    monkeypatch.setattr(sys, "argv", ["cards"])
    with pytest.raises(SystemExit, match=r"collect.json: is missing; `dvc repro` makes it"):
        cards.main()
    assert not (project / "cards").exists()


def test_a_text_stays_in_its_cell() -> None:
    assert cell("a | b\n<b>&") == "a &#124; b &lt;b>&amp;"
    assert cell(1.5) == "1.5"
