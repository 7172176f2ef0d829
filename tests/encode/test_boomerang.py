"""Variants come from their picture, stay on its side of the split, and depend on nothing beside it."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from stages.core.errors import StageError
from stages.core.latents import Latents
from stages.core.models import load_scale
from stages.core.params import parse_section
from stages.encode.boomerang import Boomerang, drawn_rows, origins_of, verdict
from stages.encode.captions import Embeddings
from stages.encode.params import Boomerang as Bounds
from stages.encode.params import EncodeParams
from stages.encode.posteriors import Posteriors
from stages.encode.processed import distinct_captions, read_processed
from stages.encode.run import main
from tests.conftest import ROOT
from tests.encode.rows import in_turn, lay, numbered

SIZES = [(32, 32), (64, 32)]


def asking(batch_size: int = 4, dtype: str = "float16", **boomerang: Any) -> EncodeParams:
    wanted = {"share": 1.0, "steps": 4, "least": 0, "most": 64, **boomerang}
    return EncodeParams.model_validate({"batch_size": batch_size, "dtype": dtype, "boomerang": wanted})


def twelve(count: int = 12) -> list[dict[str, Any]]:
    return [numbered(number, SIZES[number % 2], f"caption {number % 3}") for number in range(count)]


def made(folder: Path) -> pd.DataFrame:
    index = pd.read_parquet(folder / "index.parquet")
    return index[index["origin"] == "boomerang"]


def mean_of(folder: Path, row: Any) -> torch.Tensor:
    mean: torch.Tensor = load_file(folder / row.shard)["mean"][row.row]
    return mean


def test_variants_are_rows_of_their_own_beside_unchanged_ones(base: Path, tmp_path: Path) -> None:
    rows = twelve()
    rows[2]["captions"] = []
    rows.append({**numbered(3, SIZES[1]), "variant": 1, "repeats": 5})  # a sibling that preprocess made
    processed = lay(tmp_path / "processed", rows)
    in_turn(processed, base, tmp_path / "plain")
    in_turn(processed, base, tmp_path / "out", asking())
    plain = pd.read_parquet(tmp_path / "plain" / "index.parquet")
    index = pd.read_parquet(tmp_path / "out" / "index.parquet")
    same = index[index["origin"] == "picture"]
    pd.testing.assert_frame_equal(plain, same)
    assert same["origin_bits"].isna().all()
    variants = made(tmp_path / "out")
    assert len(variants) == len(rows) - 1  # every one but the held-out picture
    assert set(variants["split"]) == {"train"}
    merged = variants.assign(variant=variants["variant"] - 1000).merge(
        plain, on=["key", "variant"], suffixes=("", "_of")
    )
    assert len(merged) == len(variants)
    for column in ("role", "repeats", "width", "height", "original_width", "crop_x", "split"):
        assert (merged[column] == merged[f"{column}_of"]).all(), column
    assert (merged["captions"].map(list) == merged["captions_of"].map(list)).all()
    for row in variants.itertuples():
        file = load_file(tmp_path / "out" / row.shard)
        assert set(file) == {"mean", "std"}
        assert not file["std"].any()
        assert file["mean"].dtype == torch.float16
    assert len(Latents(tmp_path / "out", "train")) == 2 * len(Latents(tmp_path / "plain", "train"))
    assert Latents(tmp_path / "out", "validation").keys == ["00/0"]


def test_a_short_way_leads_back_and_a_long_one_does_not(any_base: Path, tmp_path: Path) -> None:
    """Latents move by less than the noise of one step in 500 at t near 0, and much further from the middle."""
    processed = lay(tmp_path / "processed", twelve(6))
    scale, moved = load_scale(any_base), {}
    for t in (0.001, 0.6):
        out = tmp_path / f"by {1000 * t:.0f}"
        in_turn(processed, any_base, out, asking(t=t, steps=500 if t < 0.01 else 8, dtype="float32"))
        index = pd.read_parquet(out / "index.parquet").set_index(["key", "variant"])
        steps = [
            scale.factor * (mean_of(out, row) - mean_of(out, index.loc[(row.key, row.variant - 1000)]))
            for row in made(out).itertuples()
        ]
        assert len(steps) == 5
        moved[t] = float(torch.stack([step.square().mean().sqrt() for step in steps]).mean())
    assert 0 < moved[0.001] < 0.08
    assert moved[0.6] > 5 * moved[0.001]


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_known_variants_and_neighbours_change_no_byte(any_base: Path, tmp_path: Path, guidance: float) -> None:
    params, rows = asking(guidance=guidance, t=0.6), twelve()
    few, many = lay(tmp_path / "few", [rows[0], *rows[5:]]), lay(tmp_path / "many", rows)
    in_turn(few, any_base, tmp_path / "first", params)
    grown, said = in_turn(many, any_base, tmp_path / "second", params)
    assert said == "4 pictures, 0 captions and 4 variants encoded, the others known"
    shutil.rmtree(tmp_path / ".dvc" / "tmp")
    assert in_turn(many, any_base, tmp_path / "third", params)[0] == grown


def test_other_batches_move_last_bits_alone(base: Path, tmp_path: Path) -> None:
    processed, means = lay(tmp_path / "processed", twelve()), []
    for batch_size in (1, 5):
        out = tmp_path / f"{batch_size}"
        in_turn(processed, base, out, asking(batch_size=batch_size, dtype="float32"))
        means.append([mean_of(out, row) for row in made(out).itertuples()])
    for one, other in zip(*means, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)


def test_bounds_and_share_decide_without_a_model(base: Path, tmp_path: Path) -> None:
    """What is kept, unchanged and drifted adds up; other bounds make nothing anew."""
    processed = lay(tmp_path / "processed", twelve())
    in_turn(processed, base, tmp_path / "all", asking(t=0.7))
    bits = made(tmp_path / "all")["origin_bits"].astype(int).tolist()
    least, most = sorted(bits)[3], sorted(bits)[8]
    _, said = in_turn(processed, base, tmp_path / "some", asking(t=0.7, least=least, most=most))
    assert said == "0 pictures, 0 captions and 0 variants encoded, the others known"
    figures = json.loads((tmp_path / "some.json").read_text())["boomerang"]
    expected = Counter("unchanged" if each < least else "drifted" if each > most else "kept" for each in bits)
    assert figures == {"made": 11, **dict.fromkeys(("kept", "unchanged", "drifted"), 0), **expected}
    assert made(tmp_path / "some")["origin_bits"].tolist() == [each for each in bits if least <= each <= most]
    in_turn(processed, base, tmp_path / "off")
    assert "boomerang" not in json.loads((tmp_path / "off.json").read_text())


@given(bits=st.integers(0, 64), least=st.integers(0, 64), wider=st.integers(0, 64))
def test_what_is_kept_lies_between_unchanged_and_drifted(bits: int, least: int, wider: int) -> None:
    bounds = Bounds(least=least, most=max(least, wider))
    said = verdict(bounds, bits)
    assert (said == "kept") == (bits in range(bounds.least, bounds.most + 1))
    assert said in ("kept", "unchanged", "drifted")
    if said != "kept":
        assert said == verdict(bounds, 0 if bits < bounds.least else 64)


@given(share=st.floats(0, 1), more=st.floats(0, 1))
def test_a_larger_share_draws_the_same_and_more(share: float, more: float) -> None:
    keys = [f"{number:04d}" for number in range(200)]
    splits = ["validation" if number % 10 == 0 else "train" for number in range(200)]
    rows = pa.table({"key": keys, "split": splits})
    few, many = (drawn_rows(Bounds(share=each), rows) for each in sorted((share, more)))
    assert set(few) <= set(many)
    assert all(splits[row] == "train" for row in many)
    assert abs(len(many) - 180 * max(share, more)) < 40


def test_pictures_with_conditions_have_no_variants(base: Path, tmp_path: Path) -> None:
    rows = [{**row, "conditions": []} for row in twelve(3)]
    with pytest.raises(StageError, match=r"encode\.boomerang: pictures have conditions"):
        main(asking(), lay(tmp_path / "processed", rows), base, tmp_path / "out", tmp_path / "m.json")


def test_bounds_that_keep_nothing_are_refused() -> None:
    with pytest.raises(StageError, match=r"encode\.boomerang\.most is 3, but .*should not be below least, 7"):
        parse_section(EncodeParams, "encode", {"boomerang": {"most": 3}})


@torch.no_grad()
def test_the_real_miniature_changes_drawings_by_how_far_they_go(tmp_path: Path) -> None:
    """tiny-sd: one step in 500 leaves what a person sees, 0.6 doesn't; both count from what the VAE gives back."""
    base, processed = (
        ROOT / "models" / "tiny-sd",
        lay(tmp_path / "processed", [numbered(n, (64, 64)) for n in range(7)]),
    )
    table, pictures = read_processed(processed)
    bits = {}
    for t, steps in ((0.001, 500), (0.6, 10)):
        params = asking(t=t, steps=steps)
        posteriors, embeddings = Posteriors(params, base), Embeddings(params, base)
        list(posteriors.encode(posteriors.missing(pictures)))
        list(embeddings.encode(embeddings.missing(distinct_captions(table))))
        boomerang = Boomerang(params, base, posteriors, embeddings)
        origins = origins_of(table, pictures, range(7))
        list(boomerang.encode(origins))
        bits[t] = boomerang.known(origins)["bits"].tolist()
    assert all(near < far for near, far in zip(*bits.values(), strict=True)), bits
    assert sorted(bits[0.001])[3] <= 4
