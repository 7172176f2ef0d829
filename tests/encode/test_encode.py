"""Latents belong to their picture, embeddings to their caption."""

import json
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from stages.base.random_model import random_pipeline
from stages.core import latents as latents_module
from stages.core.errors import StageError
from stages.core.latents import Latents, latents_digest
from stages.core.models import load_text_encoder, load_tokenizer, load_vae
from stages.core.pairs import write_table
from stages.core.pixels import to_pixels
from stages.encode import run as encode_run
from stages.encode.params import EncodeParams
from stages.encode.run import main
from stages.preprocess.run import PROCESSED
from tests.pictures import drawing, encoded

CAPTIONS = [["a fox", "zebra"], ["a fox"], [], ["bear"], ["a fox", "bear"]]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    random_pipeline("tiny", 0).save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def nothing_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".dvc").mkdir()
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))


@pytest.fixture
def processed(tmp_path: Path) -> Path:
    rows = [
        {
            "key": f"{9 - number}",
            "variant": 0,
            "image": {"bytes": encoded(drawing(number, (32, 32))), "path": ""},
            "width": 32,
            "height": 32,
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
    for module in (latents_module, encode_run):
        monkeypatch.setattr(module, "CAPTIONS_A_SHARD", 2)  # so that four captions lie in two shards
    main(EncodeParams(batch_size=2, dtype="float32"), processed, base, tmp_path / "out", tmp_path / "m.json")
    train = Latents(tmp_path / "out", "train")
    assert train.keys == ["5/0", "7/0", "8/0", "8/0", "8/0", "9/0"]  # an epoch shows one of them three times
    assert len(Latents(tmp_path / "out", "validation")) == 1
    vae, encoder, tokenizer = load_vae(base), load_text_encoder(base), load_tokenizer(base)
    batch = train.read([5, 0])
    for row, number in enumerate((0, 4)):
        posterior = vae.encode(to_pixels([encoded(drawing(number, (32, 32)))])).latent_dist
        torch.testing.assert_close(batch.mean[row], posterior.mean[0], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(batch.std[row], posterior.std[0], atol=1e-5, rtol=1e-4)
        for number_of_caption, caption in zip(batch.captions[row], CAPTIONS[number], strict=True):
            ids = tokenizer([caption], padding="max_length", truncation=True, return_tensors="pt").input_ids
            expected = encoder(ids).last_hidden_state[0]
            torch.testing.assert_close(train.text([number_of_caption])[0], expected, atol=1e-5, rtol=1e-4)
    ids = tokenizer([""], padding="max_length", truncation=True, return_tensors="pt").input_ids
    torch.testing.assert_close(train.text([0])[0], encoder(ids).last_hidden_state[0], atol=1e-5, rtol=1e-4)
    assert json.loads((tmp_path / "m.json").read_text())["captions"] == 3


def test_the_digest_stands_for_every_byte(base: Path, processed: Path, tmp_path: Path) -> None:
    digests = []
    for name, dtype in (("a", "float32"), ("b", "float32"), ("c", "float16")):
        params = EncodeParams.model_validate({"dtype": dtype})
        main(params, processed, base, tmp_path / name, tmp_path / "m.json")
        digests.append(latents_digest(tmp_path / name))
    assert digests[0] == digests[1] != digests[2]


def test_latents_out_of_range_name_the_picture(base: Path, processed: Path, tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"picture 9 has latents up to .*raise encode\.range"):
        main(EncodeParams(range=1e-6), processed, base, tmp_path / "out", tmp_path / "m.json")
    assert not (tmp_path / "out").exists()


def test_damaged_shards_are_named(base: Path, processed: Path, tmp_path: Path) -> None:
    main(EncodeParams(), processed, base, tmp_path / "out", tmp_path / "m.json")
    (tmp_path / "out" / "pictures" / "00000.safetensors").write_bytes(b"damaged")
    with pytest.raises(StageError, match=r"00000\.safetensors: can't be read .*; run encode again"):
        Latents(tmp_path / "out", "train").read([5])
