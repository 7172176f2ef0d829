"""The order of batches: each row once an epoch, one size a batch, and no memory."""

import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stages.base.random_model import random_pipeline
from stages.core.errors import StageError
from stages.core.pairs import write_table
from stages.encode.params import EncodeParams
from stages.encode.run import main as encode
from stages.preprocess.run import PROCESSED
from stages.train.autoencoder import open_autoencoder
from stages.train.clip import open_clip
from stages.train.diffusion import Diffusion, open_diffusion
from stages.train.order import row_of, rows_of, turn_of
from stages.train.params import TrainParams
from stages.train.run import main as train
from tests.conftest import ROOT
from tests.pictures import drawing, encoded

LENGTHS = st.lists(st.integers(1, 30), min_size=1, max_size=6)


@given(LENGTHS, st.integers(1, 9), st.integers(0, 2))
def test_a_size_sees_every_row_once_in_each_of_its_epochs(lengths: list[int], batch_size: int, seed: int) -> None:
    starts = [sum(lengths[:group]) for group in range(len(lengths))]
    groups = [range(start, start + length) for start, length in zip(starts, lengths, strict=True)]
    seen: list[list[int]] = [[] for _ in groups]
    for number in range(4 * sum(lengths) // batch_size + 8):
        rows = rows_of(number, batch_size, groups, seed)
        assert len(rows) == batch_size
        (group,) = {next(g for g, members in enumerate(groups) if row in members) for row in rows}
        seen[group] += rows
    for members, rows in zip(groups, seen, strict=True):
        for epoch in range(len(rows) // len(members)):
            assert sorted(rows[epoch * len(members) : (epoch + 1) * len(members)]) == list(members)


@given(LENGTHS, st.integers(1, 9), st.integers(0, 300))
def test_turns_are_counted_without_gaps_and_in_proportion(lengths: list[int], batch_size: int, first: int) -> None:
    turns = [turn_of(number, batch_size, lengths) for number in range(first + 40)]
    counts: Counter[int] = Counter()
    for group, number in turns:
        assert number == counts[group]
        counts[group] += 1
    share = len(turns) / sum(lengths)
    assert all(abs(counts[group] - share * length) <= 1 + len(lengths) for group, length in enumerate(lengths))


@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 200))
def test_with_one_size_samples_follow_each_other(rows: int, batch_size: int, number: int) -> None:
    samples = range(number * batch_size, (number + 1) * batch_size)
    assert rows_of(number, batch_size, [range(rows)], 3) == [row_of(sample, rows, 3) for sample in samples]


def test_the_order_of_one_size_is_what_it_was() -> None:
    """Golden: another order is another training."""
    assert [row for number in range(4) for row in rows_of(number, 4, [range(7)], 0)] == GOLDEN


GOLDEN = [2, 6, 3, 4, 5, 0, 1, 1, 0, 5, 6, 4, 3, 2, 1, 2]
SIZES = [(32, 32), (64, 32), (32, 64)]
COMPUTE = ROOT / "compute" / "one.yaml"


@pytest.fixture
def project(in_folder: Path) -> Path:
    """Fourteen pictures of three sizes, encoded."""
    random_pipeline("tiny", 0).save_pretrained("base")
    rows = [
        {
            "key": f"{number:02d}",
            "variant": 0,
            "image": {"bytes": encoded(drawing(number, SIZES[number % 3])), "path": ""},
            "width": SIZES[number % 3][0],
            "height": SIZES[number % 3][1],
            **dict.fromkeys(("original_width", "original_height"), 64),
            **dict.fromkeys(("crop_x", "crop_y"), 0),
            "captions": [f"drawing {number}"],
            "split": "validation" if number < 4 else "train",
            "role": "train",
            "repeats": 1,
        }
        for number in range(14)
    ]
    Path("processed/a").mkdir(parents=True)
    Path(".dvc").mkdir()
    write_table(pa.Table.from_pylist(rows, schema=PROCESSED), Path("processed/a/00000.parquet"))
    encode(EncodeParams(batch_size=4), Path("processed"), Path("base"), Path("latents"), Path("m.json"))
    return in_folder


def params_of(method: str) -> TrainParams:
    values = {"method": method, "steps": 7, "batch_size": 3, "validate_every": 4, "validation_bins": 2}
    previews = {"preview_every": 4, "preview_prompts": ["a drawing"], "preview_steps": 2}
    return TrainParams.model_validate({**values, **previews, "learning_rate": 1e-3})


@pytest.mark.parametrize("method", ["full", "vae"])
def test_several_sizes_train_validate_and_show(project: Path, method: str) -> None:
    live = Path("live")
    train(params_of(method), COMPUTE, Path("latents"), Path("processed"), Path("base"), Path("trained"), live)
    assert len(list(live.glob("previews/*.png"))) == 3
    assert 0 < json.loads((live / "metrics.json").read_text())["validation"]["loss"] < 10


def test_every_row_is_learned_from_and_a_batch_knows_only_its_number(project: Path) -> None:
    params = params_of("full")
    objective = open_diffusion(params, Path("latents"), Path("base"))
    keys: Counter[str] = Counter()
    for number in range(10):  # three epochs of ten rows
        rows = rows_of(number, 3, objective.groups, params.seed)
        keys.update(objective.opened.train.keys[row] for row in rows)
    assert set(keys) == set(objective.opened.train.keys)
    assert set(keys.values()) <= {2, 3, 4}
    with torch.no_grad():
        later = batch_losses(objective, 9)
        batch_losses(objective, 2)
        assert torch.equal(batch_losses(objective, 9), later)
        fresh = open_diffusion(params, Path("latents"), Path("base"))
        assert torch.equal(batch_losses(fresh, 9), later)


def batch_losses(objective: Diffusion, number: int) -> torch.Tensor:
    rows = rows_of(number, 3, objective.groups, objective.params.seed)
    return objective.losses(objective.prepare(range(number * 3, number * 3 + 3), rows)[1])


def test_validation_is_the_mean_over_all_sizes(project: Path) -> None:
    """The loss of four pictures of three sizes is what one by one gives."""
    params = params_of("full")
    whole = open_diffusion(params, Path("latents"), Path("base"))
    together = whole.validate()["loss"]
    apart = []
    for row in range(4):
        alone = open_diffusion(params, Path("latents"), Path("base"))
        held = alone.validation
        held.keys, held.places, held.captions = (
            held.keys[row : row + 1],
            held.places[row : row + 1],
            [held.captions[row]],
        )
        held.sizes = held.sizes[row : row + 1]
        apart.append(alone.validate()["loss"])
    assert together == pytest.approx(sum(apart) / 4, rel=1e-5)


def test_the_autoencoder_takes_several_sizes_and_clip_refuses_them(project: Path) -> None:
    autoencoder = open_autoencoder(params_of("vae"), Path("processed"), Path("base"))
    assert [len(group) for group in autoencoder.groups] == [3, 3, 4]
    with pytest.raises(StageError, match="square pictures of one size"):
        open_clip(params_of("clip"), Path("processed"), Path("base"))
