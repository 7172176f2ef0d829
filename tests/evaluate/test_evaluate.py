"""Copies are found, prompts are read, and real pictures are the yardstick."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from stages.core.errors import StageError
from stages.core.vision import Clip
from stages.evaluate import matching
from stages.evaluate.copies import SHARE
from stages.evaluate.extractors import Classical, read_all
from stages.evaluate.figures import (
    Sample,
    figures_of,
    open_words,
    read_samples,
    real_features,
    yardstick,
)
from stages.evaluate.params import EvaluateParams
from stages.evaluate.run import by_ratio
from tests.conftest import ROOT
from tests.evaluate.harm import noisy
from tests.pictures import drawing, encoded

CLIP = ROOT / "models" / "tiny-sd" / "clip"
TRAINING, HELD_OUT = 60, 40
PARAMS = EvaluateParams(extractor="classical")


def picture(number: int) -> Image.Image:
    return drawing(number)


@pytest.fixture(scope="module")
def processed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Finished pictures in two shards; a mirrored variant that no figure may look at."""
    folder = tmp_path_factory.mktemp("processed") / "mine"
    folder.mkdir()
    rows: list[dict[str, Any]] = []
    for number in range(TRAINING + HELD_OUT):
        split = "train" if number < TRAINING else "validation"
        row = {"key": f"{number:03d}", "captions": [f"drawing {number}"], "split": split}
        rows.append({**row, "variant": 0, "image": {"bytes": encoded(picture(number)), "path": ""}})
    rows.append({**rows[0], "variant": 1, "image": {"bytes": encoded(picture(9999)), "path": ""}})
    for shard, part in enumerate((rows[:50], rows[50:])):
        pq.write_table(pa.Table.from_pylist(part), folder / f"{shard:05d}.parquet")
    return folder.parent


def figures(processed: Path, pictures: list[Image.Image]) -> dict[str, float]:
    """Of a model that drew these, without a CLIP and without copies."""
    scale, real = real_features(PARAMS, Classical(), processed)
    drawn = scale.apply(read_all(Classical(), pictures))
    samples = [Sample(f"{number}.png", "x", each) for number, each in enumerate(pictures)]
    found = figures_of(PARAMS, real, drawn, samples, torch.ones(2, 5), [[] for _ in samples], None, None)
    return {name: figure.value for name, figure in found.items()}


def test_figures_of_real_pictures_are_better_than_of_noisy_ones(processed: Path) -> None:
    real = figures(processed, [picture(number) for number in range(2000, 2040)])
    noised = figures(processed, [noisy(picture(number), 60) for number in range(2000, 2040)])
    assert real["kid"] < noised["kid"]
    assert real["precision"] > noised["precision"]
    assert real["validation_loss"] == noised["validation_loss"] == 1
    assert "too_close" not in real


def test_real_pictures_are_the_yardstick(processed: Path) -> None:
    scale, real = real_features(PARAMS, Classical(), processed)
    found = yardstick(PARAMS, Classical(), scale, real, 30, processed, None)
    drawn = figures(processed, [noisy(picture(number), 60) for number in range(2000, 2030)])
    assert found["too_close"] == SHARE
    assert found["kid"] < drawn["kid"]
    assert found["precision"] > drawn["precision"]
    few = yardstick(PARAMS, Classical(), scale, real, 1, processed, None)
    assert few == {"too_close": SHARE}


def test_too_few_held_out_pictures_are_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    row = {"key": "a", "captions": [], "split": "validation", "variant": 0, "image": {"bytes": b"", "path": ""}}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "mine" / "0.parquet")
    with pytest.raises(StageError, match=r"has 1 held-out pictures; raise clean\.validation_share"):
        real_features(PARAMS, Classical(), tmp_path)


PROMPTS = ["red apple", "grinning face", "green heart", "yellow banana"]


@pytest.fixture(scope="module")
def emoji() -> dict[str, Image.Image]:
    """Drawn here: a red disc, a face, a heart, a yellow bow; the miniature's CLIP knows such."""
    from PIL import ImageDraw

    made = {}
    for prompt, colour in zip(PROMPTS, ("#d22f27", "#fcea2b", "#5c9e31", "#f1b31c"), strict=True):
        image = Image.new("RGB", (64, 64), "white")
        pen = ImageDraw.Draw(image)
        if "heart" in prompt:
            pen.ellipse((8, 12, 34, 38), fill=colour)
            pen.ellipse((30, 12, 56, 38), fill=colour)
            pen.polygon([(10, 32), (54, 32), (32, 58)], fill=colour)
        elif "banana" in prompt:
            pen.arc((0, -20, 64, 50), 20, 160, fill=colour, width=12)
        else:
            pen.ellipse((8, 8, 56, 56), fill=colour)
        if "face" in prompt:
            pen.ellipse((20, 22, 26, 30), fill="black")
            pen.ellipse((38, 22, 44, 30), fill="black")
            pen.chord((18, 30, 46, 50), 0, 180, fill="white", outline="black")
        made[prompt] = image
    return made


def test_prompts_that_fit_score_higher_than_shuffled_ones(emoji: dict[str, Image.Image]) -> None:
    clip = Clip("evaluate.clip", str(CLIP))
    texts = matching.read(clip, PROMPTS)
    seen = matching.seen(clip, list(emoji.values()))
    own = matching.clip_scores(seen, PROMPTS, texts)
    other = matching.clip_scores(seen, [*PROMPTS[1:], PROMPTS[0]], texts)
    assert own.mean() > other.mean() + 10
    assert ((own >= 0) & (own <= 100)).all()
    assert matching.retrieved(seen, PROMPTS, texts).mean() > matching.retrieved(seen, PROMPTS[::-1], texts).mean()
    assert matching.retrieved(seen, PROMPTS, texts).mean() >= 0.5


def test_likeness_is_to_the_real_pictures_of_that_caption(emoji: dict[str, Image.Image]) -> None:
    clip = Clip("evaluate.clip", str(CLIP))
    seen = matching.seen(clip, [emoji["red apple"], emoji["green heart"]])
    real = {"red apple": seen[:1], "unasked": seen[1:]}
    assert matching.likeness(seen, ["red apple", "green heart"], real) == pytest.approx([1.0])
    swapped = matching.likeness(seen[::-1], ["red apple", "green heart"], real)
    assert swapped[0] < 0.95


def test_words_know_the_real_pictures_of_their_prompts(processed: Path) -> None:
    words = open_words(PARAMS, str(CLIP), ["drawing 3", "drawing 70", "nobody's"], processed)
    assert list(words.real) == ["drawing 3", "drawing 70"]
    assert list(words.prompts) == ["drawing 3", "drawing 70", "nobody's"]
    scale, real = real_features(PARAMS, Classical(), processed)
    found = yardstick(PARAMS, Classical(), scale, real, 5, processed, words)
    assert 0 <= found["retrieval"] <= 1
    assert found["clip_score"] >= 0


def test_samples_are_those_that_are_listed(tmp_path: Path) -> None:
    picture(1).save(tmp_path / "0.png")
    picture(2).save(tmp_path / "grid.png")
    (tmp_path / "samples.json").write_text(json.dumps({"pictures": [{"file": "0.png", "prompt": "a"}]}))
    assert [(sample.file, sample.prompt) for sample in read_samples(tmp_path)] == [("0.png", "a")]


def test_a_sweep_without_recipes_is_an_empty_table(tmp_path: Path) -> None:
    assert list(by_ratio(tmp_path, {}).columns) == ["recipe", "method", "ratio", "loss"]
    assert isinstance(by_ratio(tmp_path, {}), pd.DataFrame)
