"""Latents belong to their picture, embeddings to their caption."""

import json
import math
import shutil
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
import torch

from stages.base.random_model import random_pipeline
from stages.core import latents as latents_module
from stages.core.errors import StageError
from stages.core.families.family import open_encoders
from stages.core.families.known import family_of
from stages.core.latents import Latents, latents_digest
from stages.core.models import load_vae
from stages.core.pairs import write_table
from stages.core.pixels import to_pixels
from stages.encode import shards
from stages.encode.params import EncodeParams
from stages.encode.run import main
from stages.preprocess.run import PROCESSED
from tests.encode.rows import SMALL, in_turn, lay, numbered
from tests.pictures import drawing, encoded

CAPTIONS = [["a fox", "zebra"], ["a fox"], [], ["bear"], ["a fox", "bear"]]


@pytest.fixture
def processed(tmp_path: Path) -> Path:
    rows = [
        {
            "key": f"{9 - number}",
            "variant": 0,
            "image": {"bytes": encoded(drawing(number, (32, 32))), "path": ""},
            "width": 32,
            "height": 32,
            **dict.fromkeys(("original_width", "original_height"), 64),
            **dict.fromkeys(("crop_x", "crop_y"), -1),
            "captions": captions,
            "split": "validation" if number == 3 else "train",
            "role": "train",
            "repeats": 3 if number == 1 else 1,
        }
        for number, captions in enumerate(CAPTIONS)
    ]
    (tmp_path / "processed" / "a").mkdir(parents=True)
    for number, part in enumerate((rows[:2], rows[2:])):
        table = pa.Table.from_pylist(part, schema=PROCESSED)
        write_table(table, tmp_path / "processed" / "a" / f"{number}.parquet")
    return tmp_path / "processed"


@torch.no_grad()
def test_every_row_has_its_own_latents_and_captions(
    base: Path, processed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (latents_module, shards):
        monkeypatch.setattr(module, "CAPTIONS_A_SHARD", 2)  # so that four captions lie in two shards
    main(EncodeParams(batch_size=2, dtype="float32"), processed, base, tmp_path / "out", tmp_path / "m.json")
    train = Latents(tmp_path / "out", "train")
    assert train.keys == ["5/0", "7/0", "8/0", "8/0", "8/0", "9/0"]  # an epoch shows one of them three times
    assert len(Latents(tmp_path / "out", "validation")) == 1
    vae, (encoder,) = load_vae(base), open_encoders(family_of(base), base)
    batch = train.read([5, 0])
    for row, number in enumerate((0, 4)):
        posterior = vae.encode(to_pixels([encoded(drawing(number, (32, 32)))])).latent_dist
        torch.testing.assert_close(batch.mean[row], posterior.mean[0], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(batch.std[row], posterior.std[0], atol=1e-5, rtol=1e-4)
        for number_of_caption, caption in zip(batch.captions[row], CAPTIONS[number], strict=True):
            expected = encoder.model(encoder.tokens([caption])).last_hidden_state
            torch.testing.assert_close(train.text([number_of_caption]).embeddings, expected, atol=1e-5, rtol=1e-4)
    empty = encoder.model(encoder.tokens([""])).last_hidden_state
    torch.testing.assert_close(train.text([0]).embeddings, empty, atol=1e-5, rtol=1e-4)
    assert json.loads((tmp_path / "m.json").read_text())["captions"] == 3


def test_the_digest_stands_for_every_byte(base: Path, processed: Path, tmp_path: Path) -> None:
    digests = []
    for name, dtype in (("a", "float32"), ("b", "float32"), ("c", "float16")):
        params = EncodeParams.model_validate({"dtype": dtype})
        main(params, processed, base, tmp_path / name, tmp_path / "m.json")
        digests.append(latents_digest(tmp_path / name))
    assert digests[0] == digests[1] != digests[2]


def test_latents_out_of_range_name_the_picture(base: Path, processed: Path, tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"picture 9, 8, 7, \.\.\. has latents up to .*raise encode\.range"):
        main(EncodeParams(range=1e-6), processed, base, tmp_path / "out", tmp_path / "m.json")
    assert not (tmp_path / "out").exists()


def test_damaged_shards_are_named(base: Path, processed: Path, tmp_path: Path) -> None:
    main(EncodeParams(), processed, base, tmp_path / "out", tmp_path / "m.json")
    (tmp_path / "out" / "pictures" / "00000.safetensors").write_bytes(b"damaged")
    with pytest.raises(StageError, match=r"00000\.safetensors: can't be read .*; run encode again"):
        Latents(tmp_path / "out", "train").read([5])


@torch.no_grad()
@pytest.mark.parametrize("size", ["tiny", "mini"])
def test_neighbours_and_place_in_a_batch_change_no_bit(size: str) -> None:
    pipeline = random_pipeline(size, 0)
    vae, encoder = pipeline.vae.eval(), pipeline.text_encoder.eval()
    pixels = to_pixels([encoded(drawing(number, (64, 32))) for number in range(8)])
    tokens = torch.randint(0, 500, (8, 77), generator=torch.Generator().manual_seed(0))
    whole, text = vae.encode(pixels).latent_dist, encoder(tokens).last_hidden_state
    for order in ([5, 2, 7, 0, 1, 3, 6, 4], [3] * 8, [6, 6, 6, 1, 1, 1, 1, 1]):
        other = vae.encode(pixels[order]).latent_dist
        assert torch.equal(other.mean, whole.mean[order])
        assert torch.equal(other.std, whole.std[order])
        assert torch.equal(encoder(tokens[order]).last_hidden_state, text[order])


def test_what_is_known_is_not_encoded_and_changes_no_byte(base: Path, tmp_path: Path) -> None:
    """Twenty pictures of two sizes; then one more at the front, one of them gone, another range; then nothing known."""
    sizes = [(32, 32), (64, 32), (32, 32)]
    rows = [numbered(number, sizes[number % 3]) for number in range(20)]
    before = lay(tmp_path / "before", rows)
    changed = [rows[0], numbered(50, (64, 32), "a wolf"), *rows[1:11], *rows[12:]]
    after = lay(tmp_path / "after", changed)
    digest, said = in_turn(before, base, tmp_path / "first")
    assert said == "20 pictures and 2 captions encoded, the others known"
    assert in_turn(before, base, tmp_path / "second") == (digest, "0 pictures and 0 captions encoded, the others known")
    moved = EncodeParams(batch_size=4, range=50)
    known, said = in_turn(after, base, tmp_path / "third", moved)
    assert said == "1 pictures and 1 captions encoded, the others known"
    shutil.rmtree(tmp_path / ".dvc" / "tmp")
    assert in_turn(after, base, tmp_path / "fourth", moved) == (
        known,
        "20 pictures and 3 captions encoded, the others known",
    )
    assert known != digest


def test_another_vae_text_encoder_or_dtype_is_other_work(base: Path, tmp_path: Path) -> None:
    processed = lay(tmp_path / "processed", [numbered(number) for number in range(4)])
    other = tmp_path / "other"
    random_pipeline("tiny", 1).save_pretrained(other)
    in_turn(processed, base, tmp_path / "first")
    for number, (model, params) in enumerate(
        ((other, SMALL), (base, EncodeParams(batch_size=4, dtype="float32")), (base, EncodeParams(batch_size=2)))
    ):
        said = in_turn(processed, model, tmp_path / f"next{number}", params)[1]
        assert said == "4 pictures and 2 captions encoded, the others known"
    shutil.rmtree(other / "text_encoder")
    shutil.copytree(base / "text_encoder", other / "text_encoder")  # captions known from base, pictures from other
    assert in_turn(processed, other, tmp_path / "mixed")[1] == "0 pictures and 0 captions encoded, the others known"


def test_wild_latents_are_not_remembered_and_a_lower_range_finds_known_ones(base: Path, tmp_path: Path) -> None:
    processed = lay(tmp_path / "processed", [numbered(number) for number in range(4)])
    for _ in range(2):
        with pytest.raises(StageError, match="picture 00, 01, 02, \\.\\.\\. has"):
            in_turn(processed, base, tmp_path / "out", EncodeParams(batch_size=4, range=1e-6))
        in_turn(processed, base, tmp_path / "fine")
    vae = load_vae(base)
    vae.encoder.conv_in.bias += math.nan
    broken = tmp_path / "broken"
    shutil.copytree(base, broken)
    vae.save_pretrained(broken / "vae")
    for _ in range(2):
        with pytest.raises(StageError, match="has latents up to nan"):
            in_turn(processed, broken, tmp_path / "out")


@torch.no_grad()
def test_shards_hold_one_size_and_rows_their_own_picture(base: Path, tmp_path: Path) -> None:
    sizes = [(32, 32), (64, 32), (32, 64)]
    rows = [numbered(number, sizes[number % 3]) for number in range(13)]
    params = EncodeParams(batch_size=4, dtype="float32")
    in_turn(lay(tmp_path / "processed", rows), base, tmp_path / "out", params)
    index = pd.read_parquet(tmp_path / "out" / "index.parquet")
    assert index["key"].tolist() == [row["key"] for row in rows]
    assert (index.groupby("shard")[["width", "height"]].nunique() == 1).all(axis=None)
    train, vae = Latents(tmp_path / "out", "train"), load_vae(base)
    assert sorted(row for group in train.groups for row in group) == list(range(12))
    for group in train.groups:
        batch = train.read(group)
        for place, key in enumerate(batch.keys):
            pixels = to_pixels([rows[int(key.split("/")[0])]["image"]["bytes"]])
            torch.testing.assert_close(batch.mean[place], vae.encode(pixels).latent_dist.mean[0], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_tiles_are_for_pictures_beyond_the_vaes_size(base: Path, tmp_path: Path) -> None:
    """The first tile of a larger picture is the latents of its own 32 x 32 px, up to where tiles overlap."""
    for side, same in ((32, True), (64, False)):
        rows = [numbered(number, (side, side)) for number in range(3)]
        processed, means = lay(tmp_path / f"processed{side}", rows), []
        for tiling in (False, True):
            out = tmp_path / f"{side}-{tiling}"
            in_turn(processed, base, out, EncodeParams(batch_size=2, dtype="float32", tiling=tiling))
            means.append(Latents(out, "train").read([0, 1]).mean)
        assert means[0].shape == means[1].shape == (2, 4, side // 8, side // 8)
        assert torch.equal(*means) == same
    pixels = to_pixels([row["image"]["bytes"] for row in rows[1:]])
    corner = load_vae(base).encode(pixels[:, :, :32, :32]).latent_dist.mean
    torch.testing.assert_close(means[1][:, :, :3, :3], corner[:, :, :3, :3], atol=1e-5, rtol=1e-4)
