"""Scores: each picture's own, whatever lies beside it, whatever was scored before; clean knows them by name."""

import shutil
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
import torch
from PIL import Image, ImageDraw
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

from stages.clean.params import CleanParams
from stages.clean.run import main as clean
from stages.core.errors import StageError
from stages.core.pairs import CAPTIONS, RAW, Pair, ShardWriter, write_table
from stages.inspect.params import InspectParams
from stages.inspect.run import main as inspect
from stages.score.params import ScoreParams
from stages.score.run import main
from tests.conftest import ROOT
from tests.pictures import bomb, drawing, encoded

SHIPPED = ROOT / "models" / "tiny-sd" / "clip"
PROBABLE = {"model": "folder:vit", "label": "drawn"}


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image classifier with random weights and two classes."""
    folder = tmp_path_factory.mktemp("imported")
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    named = {"id2label": {0: "photographed", 1: "drawn"}, "label2id": {"photographed": 0, "drawn": 1}}
    ViTForImageClassification(ViTConfig(**size, **named, image_size=32, patch_size=8)).save_pretrained(folder / "vit")
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder / "vit")
    return folder


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five pictures; one has no caption but a written one, one is a bomb."""
    (tmp_path / ".dvc").mkdir()
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    fill(tmp_path, range(5))
    written = [{"key": f"{1:064x}", "caption": "a drawing"}]
    write_table(pa.Table.from_pylist(written, schema=CAPTIONS), tmp_path / "captions.parquet")
    return tmp_path


def fill(folder: Path, numbers: range) -> None:
    writer = ShardWriter(folder / "raw" / "mine", RAW)
    for number in numbers:
        data = bomb() if number == 4 else encoded(drawing(number))
        captions = [] if number == 1 else ["red apple", f"house {number}"][: number + 1]
        writer.add(Pair(f"{number:064x}", data, f"{number}.png", captions, "mine").row(), len(data))
    writer.close()
    (folder / "raw" / "sources.json").write_text('["mine"]')


def run(folder: Path, imported: Path, **knobs: object) -> pd.DataFrame:
    params = ScoreParams.model_validate(knobs)
    main(params, folder / "raw", folder / "captions.parquet", imported, SHIPPED, folder / "scores.parquet")
    return pd.read_parquet(folder / "scores.parquet")


def test_nothing_asked_nothing_scored(project: Path, imported: Path) -> None:
    table = run(project, imported)
    assert list(table.columns) == ["source", "key"]
    assert table.empty


def test_a_row_a_picture_a_value_a_caption(project: Path, imported: Path) -> None:
    table = run(project, imported, clip="tiny-sd", classifiers={"drawn": PROBABLE}, batch_size=2)
    assert table["key"].tolist() == [f"{number:064x}" for number in range(4)]  # the bomb can't be looked at
    assert [len(listed) for listed in table["similarities"]] == [1, 1, 2, 2]
    assert table["similarities"].explode().between(-1, 1).all()
    assert table["drawn"].between(0, 1).all()
    assert table["drawn"].nunique() == 4


def test_scores_depend_on_the_picture_alone(project: Path, imported: Path) -> None:
    knobs = {"clip": "tiny-sd", "classifiers": {"drawn": PROBABLE}, "batch_size": 3}
    fill(project, range(2, 4))
    run(project, imported, **knobs)
    fill(project, range(5))
    run(project, imported, **knobs)
    grown = (project / "scores.parquet").read_bytes()
    (kept,) = (project / ".dvc" / "tmp" / "darkroom" / "score").glob("*.sqlite")
    kept.unlink()
    run(project, imported, **knobs)
    assert (project / "scores.parquet").read_bytes() == grown


def test_clip_tells_a_red_apple_from_a_house(project: Path, imported: Path) -> None:
    """The model that ships: a red disc is more like a red apple than a blue one."""
    shutil.rmtree(project / "raw" / "mine")
    writer = ShardWriter(project / "raw" / "mine", RAW)
    for number, colour in enumerate(("red", "blue")):
        disc = Image.new("RGB", (64, 64), "white")
        ImageDraw.Draw(disc).ellipse((6, 6, 58, 58), colour)
        writer.add(Pair(f"{number:064x}", encoded(disc), "x.png", ["red apple", "blue circle"], "mine").row(), 1)
    writer.close()
    red, blue = run(project, imported, clip="tiny-sd")["similarities"]
    assert red[0] - red[1] > blue[0] - blue[1]


def test_clean_filters_by_scores(project: Path, imported: Path) -> None:
    scores = run(project, imported, clip="tiny-sd", classifiers={"drawn": PROBABLE})
    inspect(InspectParams(), project / "raw", project / "captions.parquet", project / "inspected")
    middle = scores["drawn"].sort_values().iloc[1:3].mean()
    (project / "review.csv").write_text("key,verdict,caption,note\n")

    def kept(**knobs: object) -> set[str]:
        params = CleanParams.model_validate({"min_side": 1, "duplicates": {"radius": 0, "confirm_radius": 0}, **knobs})
        paths = (
            project / name
            for name in ("inspected", "scores.parquet", "review.csv", "clean", "clean.json", "rejected.csv")
        )
        clean(params, *paths)
        return set(pd.read_parquet(project / "clean" / "manifest.parquet")["key"])

    assert kept() == set(scores["key"])
    assert kept(filters=[f"drawn > {middle}"]) == set(scores["key"][scores["drawn"] > middle])
    best = scores["similarities"].map(max)
    bound = best.sort_values().iloc[1:3].mean()
    assert kept(captions={"min_similarity": bound}) == set(scores["key"][best >= bound])
    assert kept(filters=[f"similarity > {bound}"]) == set(scores["key"][best > bound])
    run(project, imported, classifiers={"width": PROBABLE})
    with pytest.raises(StageError, match=r"score\.classifiers\.width: inspect has a measure of that name"):
        kept()
    run(project, imported)
    with pytest.raises(StageError, match=r"clean\.captions\.min_similarity: nothing was scored; set score\.clip"):
        kept(captions={"min_similarity": bound})


def test_models_that_are_not_there(project: Path, imported: Path) -> None:
    with pytest.raises(StageError, match=r"score\.clip: the folder .* is missing; put the model there"):
        run(project, imported, clip="folder:nothing")
    with pytest.raises(StageError, match=r"score\.clip: .*vit is a ViTModel; use a CLIP or SigLIP"):
        run(project, imported, clip="folder:vit")
    with pytest.raises(StageError, match=r"label: .* has no class nude; use drawn, photographed"):
        run(project, imported, classifiers={"drawn": {"model": "folder:vit", "label": "nude"}})
