"""Bases: the same seed the same weights, folders checked, pickles never opened."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from diffusers import StableDiffusionPipeline

from stages.base.params import BaseParams
from stages.base.random_model import character_tokenizer, random_pipeline
from stages.base.run import main
from stages.core.errors import StageError
from stages.core.families.known import load_pipeline
from stages.core.files import folder_digest
from stages.core.process import Diffusion, load_process
from stages.core.sampling import Drawing, draw

SHIPPED = Path("models/tiny-sd")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("imported") / "tiny"
    random_pipeline("tiny", 0).save_pretrained(folder)
    return folder


def test_the_same_seed_gives_the_same_bytes(tiny: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        random_pipeline("tiny", seed).save_pretrained(tmp_path / str(seed))
    assert folder_digest(tmp_path / "0") == folder_digest(tiny)
    assert folder_digest(tmp_path / "1") != folder_digest(tiny)


def test_a_folder_is_copied_and_loads(tiny: Path, tmp_path: Path) -> None:
    main(BaseParams(model="folder:tiny"), tiny.parent, SHIPPED, tmp_path / "base")
    pipeline = load_pipeline(tmp_path / "base")
    assert pipeline.scheduler.config.prediction_type == "v_prediction"
    process = load_process(tmp_path / "base")
    assert isinstance(process, Diffusion)
    assert process.steps == 1000


def test_the_model_that_comes_with_the_project(tmp_path: Path) -> None:
    """As anyone would open it, and as the base of a run; its parts fit each other."""
    main(BaseParams(model="tiny-sd"), tmp_path, SHIPPED, tmp_path / "base")
    plain, copied = StableDiffusionPipeline.from_pretrained(SHIPPED), load_pipeline(tmp_path / "base")
    for pipeline in (plain, copied):
        assert pipeline.tokenizer.model_max_length <= pipeline.text_encoder.config.max_position_embeddings
    ours, theirs = (draw(pipeline, [Drawing("red apple", 0, (64, 64), steps=2)], 1) for pipeline in (copied, plain))
    assert np.abs(np.asarray(ours[0], dtype=int) - np.asarray(theirs[0], dtype=int)).max() <= 2
    assert sum(path.stat().st_size for path in SHIPPED.rglob("*") if path.is_file()) <= 40e6


def test_half_precision_variants_get_the_plain_name_and_pickles_stay(tiny: Path, tmp_path: Path) -> None:
    copied = tmp_path / "imported" / "half"
    shutil.copytree(tiny, copied)
    weights = copied / "unet" / "diffusion_pytorch_model.safetensors"
    (copied / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"a pickle")
    shutil.copyfile(weights, copied / "unet" / "diffusion_pytorch_model.fp16.safetensors")
    main(BaseParams(model="folder:half"), copied.parent, SHIPPED, tmp_path / "both")
    weights.unlink()
    main(BaseParams(model="folder:half"), copied.parent, SHIPPED, tmp_path / "one")
    assert folder_digest(tmp_path / "both") == folder_digest(tmp_path / "one")
    (copied / "unet" / "diffusion_pytorch_model.fp16.safetensors").unlink()
    with pytest.raises(StageError, match="unet: has no safetensors weights; convert them: pickles are not opened"):
        main(BaseParams(model="folder:half"), copied.parent, SHIPPED, tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda folder: (folder / "model_index.json").unlink(), "has no model_index.json"),
        (
            lambda folder: (folder / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"})),
            "is a FluxPipeline; use one of StableDiffusionPipeline",
        ),
        (lambda folder: (folder / "vae").rename(folder / "gone"), "has no part vae"),
    ],
)
def test_other_folders_are_refused(tiny: Path, tmp_path: Path, harm: object, said: str) -> None:
    shutil.copytree(tiny, tmp_path / "imported" / "odd")
    harm(tmp_path / "imported" / "odd")  # type: ignore[operator]  # a lambda
    with pytest.raises(StageError, match=said):
        main(BaseParams(model="folder:odd"), tmp_path / "imported", SHIPPED, tmp_path / "base")


def test_missing_folders_and_odd_names(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"base\.model: the folder .*nothing is missing"):
        main(BaseParams(model="folder:nothing"), tmp_path, SHIPPED, tmp_path / "base")
    for name in ("folder:../x", "random:huge", "hub:a/b", "hub:a/b@main", "runwayml/x"):
        with pytest.raises(ValueError, match="it has to be tiny-sd"):
            BaseParams(model=name)


def test_without_a_network_the_hub_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=rf"owner/name at {'0' * 40} can't be fetched .*; check the name"):
        main(BaseParams(model=f"hub:owner/name@{'0' * 40}"), tmp_path, SHIPPED, tmp_path / "base")


def test_the_tokenizer_tells_every_text_apart() -> None:
    tokenizer = character_tokenizer()
    for text in ("red apple", "café ñ 北京", "a  b"):
        assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == " ".join(text.split())
    assert tokenizer("x" * 200, padding="max_length", truncation=True, return_tensors="pt").input_ids.shape == (1, 77)
