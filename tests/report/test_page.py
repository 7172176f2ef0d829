"""The page is whole, light, and takes no text for more than text."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import stages.report.run
from stages.core.errors import StageError
from stages.report.lineage import facts, provenance
from stages.report.models import cards, order, samples_of, verdict
from stages.report.params import ReportParams
from tests.report.making import EVIL, MODELS, PARAMS, PICTURES, PROMPTS, make_page, make_world, size_of, write_json


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_page(tmp_path_factory.mktemp("page"), title="Mine").read_text()


def lineage_of(page: str) -> dict[str, Any]:
    found = re.search(r'id="lineage-data">(.*?)</script>', page, re.S)
    assert found
    return dict(json.loads(found[1]))


def test_nothing_but_the_times_lies_outside(page: str) -> None:
    outside = set(re.findall(r'(?:src|href)="(?!data:|#)([^"]*)"', page))
    assert outside == {"times.js"}
    assert not re.findall(r"url\(|@import|https?://", page.replace("http://www.w3.org", ""))


def test_texts_are_texts(page: str) -> None:
    assert EVIL not in page
    assert "<img src=x" not in page
    assert page.count("<script") == 3


def test_what_a_reader_looks_for_is_there(page: str) -> None:
    for text in (
        "13 pictures asked for, 7 trained on, 3 models compared",
        "0.8 → 0.5",
        "seed 1, drawn by half",
        "real pictures: 0.05",
        "Validation loss by ratio",
        "method weighted_sum, ratio 0.5",
        "4: looks like another picture",
        "The largest groups that look alike",
        "96 × 48",
        "CC0",
    ):
        assert text in page, text
    assert page.count("data-sample=") == len(MODELS) * len(PROMPTS) * 2


def test_from_a_sample_to_training_pictures(page: str) -> None:
    found = lineage_of(page)
    assert len(found["samples"]) == len(MODELS) * len(PROMPTS) * 2
    for name, sample in found["samples"].items():
        assert name.startswith(sample["model"])
        for near in sample["near"]:
            told = found["training"][near["key"]]
            assert told["license"] == "CC0"
            assert told["path"].startswith("mine: ")
            assert size_of(base64.b64decode(told["picture"].partition(",")[2]))[0] > 0
    assert found["samples"]["trained/000-0.png"]["too_close"]
    assert ["merged by", "weighted_sum"] in found["models"]["half"]["facts"]
    assert ["trained by", "full, 4 steps of 2"] in found["models"]["trained"]["facts"]
    assert any(told["caption"] == EVIL for told in found["training"].values())


def test_the_same_world_gives_the_same_bytes(page: str, tmp_path: Path) -> None:
    assert make_page(tmp_path, title="Mine").read_text() == page


def test_a_page_too_heavy_is_refused_and_the_old_one_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = make_world(tmp_path)
    paths["out"].write_text("old")
    monkeypatch.setattr(stages.report.run, "MOST_BYTES", 10_000)
    with pytest.raises(StageError, match=r"would have .* MB, more than"):
        stages.report.run.main(ReportParams(), **paths)
    assert paths["out"].read_text() == "old"


def test_samples_beyond_the_most_are_counted(tmp_path: Path) -> None:
    make_world(tmp_path)
    rows, left = samples_of(tmp_path / "samples", list(MODELS), most=7)
    assert (len(rows), left) == (1, 6)
    rows, left = samples_of(tmp_path / "samples", list(MODELS), most=1)
    assert (len(rows), left) == (1, 6)  # one row in any case


FIGURES = {
    "held_out": {},
    "models": {
        "base": {
            "kid": {"value": 2.0, "low": 1.8, "high": 2.2},
            "clip_score": {"value": 20.0, "low": 19.0, "high": 21.0},
        },
        "trained": {
            "kid": {"value": 1.0, "low": 0.9, "high": 1.1},
            "clip_score": {"value": 18.0, "low": 17.5, "high": 18.5},
        },
    },
}


def test_better_and_worse_need_intervals_apart() -> None:
    assert [row[3] for row in verdict(FIGURES)] == ["better", "worse"]
    nearer = json.loads(json.dumps(FIGURES))
    nearer["models"]["trained"]["kid"]["high"] = 1.9
    assert verdict(nearer)[0][3:] == ("no clear difference", "")
    assert verdict({**FIGURES, "held_out": {"clip_score": 18.4}})[1][3:] == ("as real pictures", "18.4")


def test_bars_lie_on_one_scale() -> None:
    kid, clip = cards(FIGURES, ["base", "trained"])
    assert [bar.best for bar in kid.bars] == [False, True]
    assert [bar.best for bar in clip.bars] == [True, False]
    for card in (kid, clip):
        for bar in card.bars:
            assert 0 <= bar.start <= bar.place <= bar.stop <= 100
    assert kid.bars[0].place == pytest.approx(2 * kid.bars[1].place, abs=0.2)


def test_models_come_in_the_order_of_their_making() -> None:
    assert order({"zebra", "trained", "ant", "base"}) == ["base", "trained", "ant", "zebra"]


def test_a_model_from_elsewhere_says_so(tmp_path: Path) -> None:
    make_world(tmp_path)
    assert provenance(tmp_path / "base") == {}
    assert ("trained", "elsewhere: its file doesn't say how") in facts("base", {}, "ab" * 32)
    assert facts("t", {"method": "lora", "params": PARAMS, "data_sha256": "e" * 64}, "ab" * 32)[-1][0] == "on data"
    (tmp_path / "empty").mkdir()
    with pytest.raises(StageError, match="no weights"):
        provenance(tmp_path / "empty")


def test_nothing_rejected_nothing_drawn_near(tmp_path: Path) -> None:
    """The page of a world without duplicates, merges and neighbours."""
    paths = make_world(tmp_path)
    rejected = pd.read_parquet(paths["clean"] / "rejected.parquet")
    rejected[:0].to_parquet(paths["clean"] / "rejected.parquet")
    write_json(paths["grids"] / "grids.json", {})
    write_json(paths["evaluation"] / "nearest.json", {"threshold": None, "models": {name: [] for name in MODELS}})
    (paths["evaluation"] / "merges.csv").write_text("recipe,method,ratio,loss\n")
    stages.report.run.main(ReportParams(kept_examples=0), **paths)
    shown = paths["out"].read_text()
    assert "Nothing was rejected." in shown
    assert "Memorised?" not in shown
    assert f"{PICTURES + 1} pictures asked for" in shown
