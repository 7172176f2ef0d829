"""Training from nothing: the autoencoder's and CLIP's objectives, and that a stopped run ends as one that never did."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from diffusers import StableDiffusionPipeline
from diffusers.models.resnet import ResnetBlock2D
from dvclive import Live
from PIL import Image
from transformers import CLIPModel

from stages.base.random_model import random_pipeline
from stages.base.run import copy_model
from stages.core.families.family import load_encoder, load_tokenizer
from stages.core.families.known import load_pipeline
from stages.core.families.sd import StableDiffusion
from stages.core.files import folder_digest
from stages.core.models import load_vae
from stages.core.pairs import ShardWriter
from stages.core.pixels import Pixels, to_images, to_pixels
from stages.preprocess.run import PROCESSED
from stages.train.autoencoder import difference, open_autoencoder
from stages.train.clip import augmented, contrastive_losses, numbered, open_clip, train_tokenizer
from stages.train.loop import Objective, run_loop
from stages.train.params import TrainParams
from stages.train.record import Record
from stages.train.state import State, load_state

COLOURS = {"red": (220, 30, 30), "green": (30, 180, 60), "blue": (40, 60, 220), "yellow": (240, 210, 40)}
OPENERS: dict[str, Callable[[TrainParams, Path, Path], Objective]] = {"vae": open_autoencoder, "clip": open_clip}


@pytest.fixture(scope="module")
def processed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures of 32 px: a colour in a half; three of them held out."""
    folder = tmp_path_factory.mktemp("processed")
    writer = ShardWriter(folder / "drawn", PROCESSED)
    for number, (side, colour) in enumerate((s, c) for s in ("left", "right", "whole") for c in COLOURS):
        image = Image.new("RGB", (32, 32), "white")
        image.paste(COLOURS[colour], (16 if side == "right" else 0, 0, 16 if side == "left" else 32, 32))
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        row: dict[str, Any] = dict.fromkeys(PROCESSED.names, 0)
        row |= {"key": f"{number:064x}", "image": {"bytes": buffer.getvalue(), "path": ""}, "width": 32, "height": 32}
        row |= {"captions": [f"{side} {colour}", colour], "split": "validation" if number % 4 == 3 else "train"}
        row |= {"role": "train", "repeats": 1}
        writer.add(row, 1)
    writer.close()
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    random_pipeline("tiny", 0).save_pretrained(folder)
    return folder


def train(params: TrainParams, objective: Objective, folder: Path) -> tuple[dict[str, torch.Tensor], State]:
    folder.mkdir(exist_ok=True)
    state = load_state(folder) or State()
    with Live(str(folder / "live"), dvcyaml=None, save_dvc_exp=False, report=None) as live:
        weights = run_loop(params, objective, Record(params, live, folder, state), Accelerator())
    return {name: weight.clone() for name, weight in weights.items()}, state


def knobs(method: str, **others: Any) -> TrainParams:
    settings = {"method": method, "steps": 4, "batch_size": 4, "learning_rate": 1e-2, "ema_decay": 0.5, "log_every": 1}
    return TrainParams(**{**settings, "validate_every": 2, "preview_every": 2, "vocabulary": 530, **others})


@pytest.mark.parametrize("method", ["vae", "clip"])
def test_a_stopped_training_ends_as_one_that_never_stopped(
    method: str, processed: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = knobs(method, checkpoint_every=2)
    whole, curve = train(params, OPENERS[method](params, processed, base), tmp_path / "whole")
    stopped = OPENERS[method](params, processed, base)
    prepare = stopped.prepare

    def fail_in_step_3(samples: Any, rows: Any) -> Any:
        if samples[0] >= 3 * params.batch_size:
            raise RuntimeError("the power is out")
        return prepare(samples, rows)

    monkeypatch.setattr(stopped, "prepare", fail_in_step_3)
    with pytest.raises(RuntimeError):
        train(params, stopped, tmp_path / "stopped")
    again, curve_again = train(params, OPENERS[method](params, processed, base), tmp_path / "stopped")
    assert whole.keys() == again.keys()
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    assert curve.curve == curve_again.curve
    assert len({(step, name) for step, name, _ in curve.curve}) == len(curve.curve)


@pytest.mark.parametrize("method", ["vae", "clip"])
def test_it_learns(method: str, processed: Path, base: Path, tmp_path: Path) -> None:
    params = knobs(method, steps=60, learning_rate=3e-3, validate_every=60, preview_every=0, ema_decay=0.0)
    _, state = train(params, OPENERS[method](params, processed, base), tmp_path)
    losses = [value for _, name, value in state.curve if name == "train/loss"]
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5])


def test_a_draw_is_the_samples_alone(processed: Path, base: Path) -> None:
    params = knobs("vae")
    objective = open_autoencoder(params, processed, base)

    def losses(samples: list[int], rows: list[int]) -> torch.Tensor:
        return objective.losses(objective.prepare(samples, rows)[1])

    alone = torch.cat([losses([n], [row]) for n, row in enumerate([5, 2, 0])])
    assert torch.allclose(losses([0, 1, 2], [5, 2, 0]), alone, atol=1e-6)
    assert not torch.equal(losses([0], [5]), losses([9], [5]))


def test_the_trained_vae_is_part_of_a_whole_model(processed: Path, base: Path, tmp_path: Path) -> None:
    params = knobs("vae", steps=2)
    objective = open_autoencoder(params, processed, base)
    weights, _ = train(params, objective, tmp_path / "state")
    out = tmp_path / "out"
    objective.save({name: weight.half() for name, weight in weights.items()}, {"method": "vae"}, out)
    vae = load_vae(out)
    assert all(torch.equal(weight.half(), vae.state_dict()[name].half()) for name, weight in weights.items())
    latents = vae.encode(Pixels(processed, "train").read(range(9))).latent_dist.mode() * vae.config.scaling_factor
    assert float(latents.std()) == pytest.approx(1, abs=0.01)
    for part in ("unet", "text_encoder", "tokenizer", "scheduler"):
        assert folder_digest(out / part) == folder_digest(base / part)


def test_a_decoder_learns_alone(processed: Path, base: Path, tmp_path: Path) -> None:
    params = knobs("vae", steps=2, vae_part="decoder")
    objective = open_autoencoder(params, processed, base)
    weights, _ = train(params, objective, tmp_path / "state")
    objective.save(weights, {}, tmp_path / "out")
    before, after = load_vae(base), load_vae(tmp_path / "out")
    assert before.config.scaling_factor == after.config.scaling_factor
    same = {name for name, weight in before.state_dict().items() if torch.equal(weight, after.state_dict()[name])}
    assert same == {name for name in before.state_dict() if name.startswith(("encoder.", "quant_conv."))}


def test_the_trained_text_encoder_is_clips_own(processed: Path, base: Path, tmp_path: Path) -> None:
    params = knobs("clip", steps=2)
    objective = open_clip(params, processed, base)
    weights, _ = train(params, objective, tmp_path / "state")
    out = tmp_path / "out"
    objective.save(weights, {"method": "clip"}, out)
    tokens = load_tokenizer(out, "text_encoder")(["left red"], return_tensors="pt", padding="max_length")
    both = CLIPModel.from_pretrained(out / "clip").eval()
    with torch.no_grad():
        alone = load_encoder(StableDiffusion(), out, "text_encoder")(tokens.input_ids).last_hidden_state
        assert torch.equal(alone, both.text_model(tokens.input_ids).last_hidden_state)
    pipeline = load_pipeline(out)
    assert isinstance(pipeline, StableDiffusionPipeline)
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline("left red", num_inference_steps=1, height=32, width=32).images[0].size == (32, 32)


def test_any_text_is_read_and_known_words_are_one_token() -> None:
    tokenizer = train_tokenizer(["red apple", "green apple", "red fish"] * 5, 600, 16)
    assert len(tokenizer("apple").input_ids) == 3  # between begin and end
    strange = "Ünïcode 中文 🍎 zzz"
    assert tokenizer.unk_token_id not in tokenizer(strange).input_ids[1:-1]
    assert tokenizer.decode(tokenizer("red apple").input_ids, skip_special_tokens=True).strip() == "red apple"
    assert len(tokenizer) <= 600


def test_a_tokenizer_depends_on_no_order() -> None:
    captions = ["red apple", "green apple", "red fish", "fishing pole", "apple red"] * 3
    assert train_tokenizer(captions, 560, 16).get_vocab() == train_tokenizer(captions[::-1], 560, 16).get_vocab()


def test_contrast_of_perfect_and_of_useless_scores() -> None:
    captions = numbered(["a", "b", "c", "a"])
    same = torch.tensor([[first == second for second in "abca"] for first in "abca"])
    assert contrastive_losses(torch.zeros(4, 4), captions).tolist() == pytest.approx([np.log(4)] * 4)
    perfect = contrastive_losses(torch.where(same, 0.0, -1e4), captions)
    assert perfect.tolist() == pytest.approx([np.log(2), 0, 0, np.log(2)])  # two rights share the answer
    scores = torch.randn(4, 4)
    turned = contrastive_losses(scores.T, captions)
    assert torch.allclose(contrastive_losses(scores, captions), turned)


def test_difference_sees_edges_that_means_do_not() -> None:
    flat = torch.zeros(1, 3, 8, 8)
    assert difference(flat, flat).tolist() == [0]
    assert difference(flat + 0.5, flat).tolist() == pytest.approx([0.375])
    checks = torch.tensor([0.5, -0.5]).repeat(4).expand(1, 3, 8, 8)
    assert float(difference(checks, flat)) == pytest.approx(0.5)


def test_augmentation_with_middling_draws_changes_nothing_and_each_draw_its_own_thing() -> None:
    pictures = torch.rand(2, 3, 32, 32) * 2 - 1
    neutral = torch.tensor([0.5, 0.5, 0.25 / 0.42, 0.5, 2 / 3, 0.5]).repeat(2, 1)
    assert torch.allclose(augmented(pictures, neutral), pictures, atol=1e-4)
    shifted = neutral.clone()
    shifted[:, 1] = 1.0  # an eighth of the side: 4 px
    moved = augmented(pictures, shifted)
    assert torch.allclose(moved[..., :-4], pictures[..., 4:], atol=1e-4)
    grey = neutral.clone()
    grey[:, 4] = -1 / 6
    assert augmented(pictures, grey).std(dim=1).max() < 1e-3
    inked = neutral.clone()
    inked[:, 5] = 1.0
    flat = torch.full((2, 3, 32, 32), 0.5)
    assert torch.allclose(augmented(flat, inked), flat)
    assert (augmented(pictures, inked) <= augmented(pictures, neutral) + 1e-5).all()


def test_pixels_and_images_are_inverse(processed: Path) -> None:
    pixels = Pixels(processed, "train").read([0, 3])
    images = to_images(pixels)
    buffers = [io.BytesIO() for _ in images]
    for image, buffer in zip(images, buffers, strict=True):
        image.save(buffer, "PNG")
    assert torch.equal(to_pixels([buffer.getvalue() for buffer in buffers]), pixels)


def test_the_next_training_can_start_from_what_this_one_made(processed: Path, base: Path, tmp_path: Path) -> None:
    params = knobs("clip", steps=1)
    objective = open_clip(params, processed, base)
    weights, _ = train(params, objective, tmp_path / "state")
    objective.save(weights, {}, tmp_path / "made")
    copy_model(tmp_path / "made", tmp_path)
    assert folder_digest(tmp_path / "clip") == folder_digest(tmp_path / "made" / "clip")
    assert CLIPModel.from_pretrained(tmp_path / "clip").config.projection_dim == 32


def test_a_small_vae_begins_with_blocks_that_are_their_shortcuts() -> None:
    vae = random_pipeline("small", 0).vae
    blocks = [block for block in vae.modules() if isinstance(block, ResnetBlock2D)]
    assert len(blocks) == 4 + 2 + 8 + 2
    for block in blocks:
        x = torch.randn(1, block.in_channels, 4, 4)
        assert torch.equal(block(x, None), block.conv_shortcut(x) if block.conv_shortcut else x)
