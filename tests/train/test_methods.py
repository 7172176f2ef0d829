"""Every method on every family: it runs, goes on after a kill with the same bytes, and its result opens elsewhere."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from diffusers import ControlNetModel, DDIMScheduler
from safetensors import safe_open
from safetensors.torch import load_file

from stages.base.random_families import build
from stages.core.conditions import make_condition
from stages.core.errors import StageError
from stages.core.families.family import Text
from stages.core.families.known import family_of, load_pipeline
from stages.core.files import folder_digest
from stages.core.pairs import write_table
from stages.core.sampling import Drawing, draw
from stages.encode.params import EncodeParams
from stages.encode.run import main as encode
from stages.preprocess.run import CONDITIONS, PROCESSED
from stages.train import loop
from stages.train.averages import average_weights
from stages.train.controlnet import ControlNet
from stages.train.diffusion import open_diffusion
from stages.train.learner import open_base
from stages.train.optimizers import make_optimizers
from stages.train.params import TrainParams
from stages.train.run import main as train
from stages.train.texts import Stored
from tests.conftest import ROOT
from tests.pictures import drawing, encoded

FAMILIES = ("tiny", "tiny-sdxl", "tiny-sd3")
COMPUTE = ROOT / "compute" / "one.yaml"
METHODS: dict[str, dict[str, Any]] = {
    "full": {},
    "full with text": {"method": "full", "text_encoder": {"learns": True}},
    "lora": {"lora": {"rank": 2, "alpha": 4}},
    "lora with text": {"method": "lora", "lora": {"rank": 2}, "text_encoder": {"learns": True}},
    "dora": {"method": "lora", "lora": {"rank": 2, "dora": True}},
    "dreambooth": {"prompts": ["a photo of sks fox"], "prior": {"prompt": "a fox", "pictures": 3, "steps": 2}},
    "textual_inversion": {
        "prompts": ["a <toy>", "the <toy> in red"],
        "words": [{"token": "<toy>", "initialiser": "fox", "vectors": 2}],
    },
    "controlnet": {},
}
BOTH = [(family, method) for family in FAMILIES for method in METHODS if (family, method) != ("tiny-sd3", "controlnet")]


def lay(folder: Path) -> None:
    """Eight pictures, two of them held out, each with its edges."""
    rows = []
    for number in range(8):
        image = drawing(number, (32, 32))
        edges = encoded(make_condition("canny", image))
        rows.append(
            {
                "key": f"{number:02d}",
                "variant": 0,
                "image": {"bytes": encoded(image), "path": ""},
                **dict.fromkeys(("width", "height", "original_width", "original_height"), 32),
                **dict.fromkeys(("crop_x", "crop_y"), 0),
                "captions": [f"drawing {number}"],
                "split": "validation" if number < 2 else "train",
                "role": "train",
                "repeats": 1,
                "conditions": [{"name": "canny", "bytes": edges}],
            }
        )
    (folder / "a").mkdir(parents=True)
    write_table(pa.Table.from_pylist(rows, schema=PROCESSED.append(CONDITIONS)), folder / "a" / "00000.parquet")


@pytest.fixture(scope="module")
def projects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A base of each family, and data encoded by it."""
    found = {}
    for family in FAMILIES:
        folder = tmp_path_factory.mktemp(family)
        (folder / ".dvc").mkdir()
        build(family, 0).save_pretrained(folder / "base")
        lay(folder / "processed")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DVC_ROOT", str(folder))
            encode(
                EncodeParams(batch_size=4), folder / "processed", folder / "base", folder / "latents", folder / "m.json"
            )
        found[family] = folder
    return found


def params_of(method: str, **others: Any) -> TrainParams:
    values = {"method": method, "steps": 4, "batch_size": 3, "learning_rate": 1e-3, "log_every": 1, **METHODS[method]}
    looks = {"validate_every": 2, "validation_bins": 2, "preview_every": 4, "preview_prompts": ["a fox"]}
    return TrainParams.model_validate({**values, **looks, "preview_steps": 2, "checkpoint_every": 1, **others})


@pytest.fixture
def enter(projects: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Train in a project; what comes out lies below tmp_path."""

    def run(family: str, params: TrainParams, name: str = "out") -> Path:
        monkeypatch.setenv("DVC_ROOT", str(projects[family]))
        project = projects[family]
        train(
            params,
            COMPUTE,
            project / "latents",
            project / "processed",
            project / "base",
            tmp_path / name,
            tmp_path / f"{name}-live",
        )
        return tmp_path / name

    return run


@pytest.mark.parametrize(("family", "method"), BOTH)
def test_it_trains_resumes_to_the_bit_and_draws(
    family: str, method: str, enter: Any, projects: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    params = params_of(method, steps=6, checkpoint_every=2)
    whole = enter(family, params)
    kills = set(random.Random(f"{family} {method}").sample(range(6), 3))

    def killed(params: TrainParams, average: Any, weights: Any, step: int) -> None:
        """In the middle of three steps, after the weights have moved: what was not saved is lost."""
        if step in kills:
            kills.remove(step)
            raise KeyboardInterrupt
        average_weights(params, average, weights, step)

    monkeypatch.setattr(loop, "average_weights", killed)
    while kills:
        with pytest.raises(KeyboardInterrupt):
            enter(family, params, "again")
    again = enter(family, params, "again")
    assert folder_digest(whole) == folder_digest(again)
    assert folder_digest(whole.with_name("out-live")) == folder_digest(again.with_name("again-live"))

    base = projects[family] / "base"
    parts = [part for part in base.iterdir() if part.is_dir()]
    changed = {part.name for part in parts if folder_digest(part) != folder_digest(whole / part.name)}
    denoiser = family_of(base).denoiser
    encoders = {name for name in family_of(base).encoders if name != "text_encoder_3"}
    match method:
        case "full with text" | "lora with text":
            assert changed == {denoiser} | encoders
        case "textual_inversion":
            assert changed == encoders | {name.replace("text_encoder", "tokenizer") for name in encoders}
        case "controlnet":
            assert not changed
        case _:
            assert changed == {denoiser}
    pipeline = load_pipeline(whole)
    assert draw(pipeline, [Drawing("a <toy>", 0, (32, 32), 2, 3.0)], 1)[0].size == (32, 32)
    for path in whole.rglob("*.safetensors"):
        first = base / path.relative_to(whole)
        if not first.exists() or first.read_bytes() != path.read_bytes():
            with safe_open(path, "pt") as file:
                assert set(file.metadata()) == {"darkroom"}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["lora", "dora", "lora with text"])
def test_an_adapter_loaded_by_diffusers_is_the_model_with_it_added(
    family: str, method: str, enter: Any, projects: dict[str, Path]
) -> None:
    out = enter(family, params_of(method, learning_rate=0.05))
    base = projects[family] / "base"
    added, adapted, plain = (load_pipeline(folder) for folder in (out, base, base))
    adapted.load_lora_weights(out / "adapter")
    pictures = [
        torch.tensor(list(draw(pipeline, [Drawing("a fox", 3, (32, 32), 2, 3.0)], 1)[0].tobytes()))
        for pipeline in (added, adapted, plain)
    ]
    assert (pictures[0] - pictures[1]).abs().max() <= 1
    assert (pictures[0] - pictures[2]).abs().max() > 1


@pytest.mark.parametrize("family", ["tiny", "tiny-sdxl"])
def test_kohyas_file_is_the_same_adapter(family: str, enter: Any, projects: dict[str, Path]) -> None:
    out = enter(family, params_of("lora with text", learning_rate=0.05, lora={"rank": 2, "alpha": 3}))
    pictures = []
    for name in ("pytorch_lora_weights.safetensors", "kohya.safetensors"):
        pipeline = load_pipeline(projects[family] / "base")
        pipeline.load_lora_weights(out / "adapter", weight_name=name)
        pictures.append(draw(pipeline, [Drawing("a fox", 3, (32, 32), 2, 3.0)], 1)[0].tobytes())
    assert pictures[0] == pictures[1]


@pytest.mark.parametrize("family", ["tiny", "tiny-sdxl"])
def test_a_single_file_opens_as_the_folder_does(family: str, enter: Any) -> None:
    out = enter(family, params_of("full with text", single_file=True))
    kind: Any = family_of(out).pipeline
    single = kind.from_single_file(out / "checkpoint.safetensors", config=str(out), local_files_only=True)
    folder = load_pipeline(out)
    for part in ("unet", "vae", *family_of(out).encoders):
        theirs, ours = getattr(single, part).state_dict(), getattr(folder, part).state_dict()
        assert theirs.keys() == ours.keys()
        assert all(torch.equal(theirs[name], ours[name]) for name in ours), part


def test_the_words_load_into_a_plain_base(enter: Any, projects: dict[str, Path]) -> None:
    out = enter("tiny", params_of("textual_inversion", learning_rate=0.05))
    vectors = load_file(out / "embeddings" / "toy.safetensors")["<toy>"]
    assert vectors.shape == (2, 32)
    pipeline = load_pipeline(projects["tiny"] / "base")
    pipeline.load_textual_inversion(out / "embeddings" / "toy.safetensors")
    own = load_pipeline(out)
    pictures = [draw(one, [Drawing("a <toy>", 3, (32, 32), 2, 3.0)], 1)[0].tobytes() for one in (pipeline, own)]
    assert pictures[0] == pictures[1]
    tokens = own.tokenizer(own.maybe_convert_prompt("a <toy>", own.tokenizer)).input_ids
    table = own.text_encoder.get_input_embeddings().weight
    torch.testing.assert_close(table[tokens[-3:-1]], vectors)
    before = load_pipeline(projects["tiny"] / "base").text_encoder.get_input_embeddings().weight
    assert torch.equal(table[: len(before)], before)


def test_muon_takes_no_words_for_a_matrix(projects: dict[str, Path]) -> None:
    words = [{"token": "<toy>", "initialiser": "fox", "vectors": 20}]
    params = params_of("textual_inversion", words=words, optimizer="muon")
    objective = open_diffusion(params, projects["tiny"] / "latents", projects["tiny"] / "base")
    (optimizer,) = make_optimizers(params, objective.rates)
    assert isinstance(optimizer, torch.optim.AdamW)
    assert [tuple(weight.shape) for group in optimizer.param_groups for weight in group["params"]] == [(20, 32)]


def test_a_controlnet_says_nothing_at_first_and_opens_by_itself(enter: Any, projects: dict[str, Path]) -> None:
    opened = open_base(params_of("controlnet"), projects["tiny"] / "latents", projects["tiny"] / "base", ["train"])
    learner = ControlNet(opened, Stored(opened.train))
    say = learner.further(learner.conditions(opened.train, [0, 1]))
    said = say(torch.randn(2, 4, 4, 4), torch.tensor([1, 2]), Text(torch.randn(2, 77, 32)), torch.zeros(2, 6))
    assert not said["mid_block_additional_residual"].any()
    assert not any(part.any() for part in said["down_block_additional_residuals"])
    out = enter("tiny", params_of("controlnet", learning_rate=0.05))
    network = ControlNetModel.from_pretrained(out / "controlnet", use_safetensors=True)
    last = [weight for name, weight in network.state_dict().items() if name.startswith("controlnet_down_blocks")]
    assert any(weight.any() for weight in last)


@pytest.mark.parametrize("method", ["dreambooth", "textual_inversion"])
def test_class_pictures_are_not_taken_for_the_thing(
    method: str, projects: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures of the role regularisation are neither learned as the word nor validated on by its prompt."""
    monkeypatch.setenv("DVC_ROOT", str(projects["tiny"]))
    latents = tmp_path / "latents"
    shutil.copytree(projects["tiny"] / "latents", latents)
    index = pq.read_table(latents / "index.parquet")
    classes = {"01", "06", "07"}  # the first is held out
    roles = ["regularisation" if key in classes else "train" for key in index.column("key").to_pylist()]
    write_table(index.set_column(index.column_names.index("role"), "role", pa.array(roles)), latents / "index.parquet")
    objective = open_diffusion(params_of(method), latents, projects["tiny"] / "base")
    learned, held_out = ({key[:2] for key in data.keys} for data in (objective.opened.train, objective.validation))
    assert learned == {"02", "03", "04", "05"}
    assert held_out == {"00"}
    kept = {key[:2] for key in objective.priors.keys} if objective.priors is not None else set()
    assert kept == ({"06", "07"} if method == "dreambooth" else set())


def test_class_pictures_are_drawn_once(enter: Any, projects: dict[str, Path]) -> None:
    enter("tiny", params_of("dreambooth"))
    drawn = sorted((projects["tiny"] / ".dvc" / "tmp" / "darkroom" / "priors").iterdir())
    times = [path.stat().st_mtime_ns for path in drawn]
    enter("tiny", params_of("dreambooth", learning_rate=2e-3), "other")
    assert [path.stat().st_mtime_ns for path in drawn] == times
    assert sorted((projects["tiny"] / ".dvc" / "tmp" / "darkroom" / "priors").iterdir()) == drawn


@pytest.mark.parametrize("setting", ["gradient_checkpointing", "mask", "huber", "min_snr", "perturbed", "no average"])
def test_settings_change_what_they_should_and_only_that(setting: str, enter: Any) -> None:
    """Checkpointing changes nothing but the last bits; all else changes what is learned."""
    settings: dict[str, dict[str, Any]] = {
        "gradient_checkpointing": {"gradient_checkpointing": True},
        "mask": {"objective": {"mask": "canny"}},
        "huber": {"objective": {"loss": "huber"}},
        "min_snr": {"objective": {"weighting": "min_snr"}},
        "perturbed": {"objective": {"input_perturbation": 0.1, "noise_offset": 0.1}},
        "no average": {"ema_decay": 0.0},
    }
    plain, other = enter("tiny", params_of("full")), enter("tiny", params_of("full", **settings[setting]), "other")
    first, second = (load_file(folder / "unet" / "diffusion_pytorch_model.safetensors") for folder in (plain, other))
    largest = max(float((first[name] - second[name]).abs().max()) for name in first)
    assert (largest < 1e-4) == (setting == "gradient_checkpointing")


def test_the_best_weights_are_kept_and_a_stalled_training_stops(enter: Any) -> None:
    """A rate that is far too high: after the first validation without a lower loss it ends, with the weights before."""
    harmful: dict[str, Any] = {"learning_rate": 0.1, "steps": 12, "ema_decay": 0.0, "patience": 1}
    out = enter("tiny", params_of("full", **harmful, keep="best"))
    curve = (out.with_name("out-live") / "plots/metrics/validation/loss.tsv").read_text().splitlines()[1:]
    losses = [float(line.split("\t")[1]) for line in curve]
    best = losses.index(min(losses))
    assert 0 < best == len(losses) - 2
    assert 2 * (best + 1) < 12  # a validation is two steps
    shorter = enter("tiny", params_of("full", **{**harmful, "steps": 2 * best, "patience": 0}), "shorter")
    kept, expected = (load_file(folder / "unet" / "diffusion_pytorch_model.safetensors") for folder in (out, shorter))
    assert all(torch.equal(kept[name], expected[name]) for name in kept)


def test_misfits_are_refused_before_work(enter: Any, projects: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(StageError, match="controlnet doesn't know Stable Diffusion 3"):
        enter("tiny-sd3", params_of("controlnet"))
    with pytest.raises(StageError, match=r"single_file: is for Stable Diffusion 1, 2 and XL"):
        enter("tiny-sd3", params_of("full", single_file=True))
    with pytest.raises(StageError, match="no caption says <toy>"):
        enter("tiny", params_of("textual_inversion", prompts=["a toy"]))
    with pytest.raises(StageError, match=r"train\.lora\.targets: .*nowhere"):
        enter("tiny", params_of("lora", lora={"rank": 2, "targets": ["nowhere"]}))
    with pytest.raises(StageError, match="have no condition depth"):
        enter("tiny", params_of("controlnet", controlnet={"condition": "depth"}))
    other = tmp_path / "latents"
    shutil.copytree(projects["tiny-sdxl"] / "latents", other)
    with pytest.raises(StageError, match="don't fit Stable Diffusion 1 or 2"):
        train(params_of("full"), COMPUTE, other, tmp_path, projects["tiny"] / "base", tmp_path / "o", tmp_path / "l")


@pytest.mark.parametrize(("kind", "zero"), [("epsilon", False), ("v_prediction", False), ("v_prediction", True)])
def test_prediction_types_and_noise_that_ends_in_noise(
    kind: str, zero: bool, projects: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each lowers its own loss; a schedule that was changed to end in noise alone is saved so (arXiv 2305.08891)."""
    project = projects["tiny"]
    monkeypatch.setenv("DVC_ROOT", str(project))
    base = tmp_path / "base"
    shutil.copytree(project / "base", base)
    schedule = base / "scheduler" / "scheduler_config.json"
    schedule.write_text(json.dumps({**json.loads(schedule.read_text()), "prediction_type": kind}))
    params = params_of("full", steps=30, learning_rate=3e-3, objective={"zero_terminal_snr": zero}, preview_every=0)
    paths = project / "latents", project / "processed", base, tmp_path / "out", tmp_path / "live"
    train(params, COMPUTE, *paths)
    lines = (tmp_path / "live/plots/metrics/train/loss.tsv").read_text().splitlines()[1:]
    losses = [float(line.split("\t")[1]) for line in lines]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    pipeline = load_pipeline(tmp_path / "out")
    assert pipeline.scheduler.config.prediction_type == kind
    assert bool(pipeline.scheduler.config.get("rescale_betas_zero_snr")) == zero
    if zero:
        assert pipeline.scheduler.config.timestep_spacing == "trailing"
        assert float(DDIMScheduler.from_config(pipeline.scheduler.config).alphas_cumprod[-1]) < 1e-6
    elif kind == "epsilon":
        with pytest.raises(StageError, match="zero_terminal_snr doesn't fit a base that predicts epsilon"):
            train(params_of("full", objective={"zero_terminal_snr": True}), COMPUTE, *paths)


def test_pictures_far_from_the_bases_size_are_refused(
    projects: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = projects["tiny"]
    monkeypatch.setenv("DVC_ROOT", str(project))
    base = tmp_path / "base"
    shutil.copytree(project / "base", base)
    config = base / "unet" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "sample_size": 64}))
    with pytest.raises(StageError, match="pictures of 32 x 32 px don't fit a base made for 512 x 512"):
        train(
            params_of("full"), COMPUTE, project / "latents", project / "processed", base, tmp_path / "o", tmp_path / "l"
        )
