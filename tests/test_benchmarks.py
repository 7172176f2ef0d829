"""Benchmarks are run by hand, seldom: what they make of the stages has to be there when they are."""

from pathlib import Path

import pytest
from PIL import Image

from benchmarks.methods import edge_f1
from benchmarks.projects import draw_subject, subject_project
from stages.core.conditions import make_condition
from stages.core.latents import Latents


def test_a_subject_goes_through_the_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".dvc").mkdir()
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    project = subject_project(tmp_path / "subject")
    train, held_out = (Latents(project.latents, split) for split in ("train", "validation"))
    assert (len(train), len(held_out)) == (5, 1)
    assert train.condition("canny", [0]).shape == (1, 3, 64, 64)


def test_edges_agree_with_themselves_and_with_what_is_a_pixel_away() -> None:
    picture = draw_subject(0, (0, 0), 1.0).resize((64, 64))
    edges = make_condition("canny", picture)
    assert edge_f1(picture, edges) == 1
    beside = picture.transform(picture.size, Image.Transform.AFFINE, (1, 0, 1, 0, 1, 1), fillcolor="white")
    assert edge_f1(beside, edges) > 0.99
    assert edge_f1(beside, edges, within=0) < 0.7
    assert edge_f1(Image.new("RGB", (64, 64)), edges) == 0
