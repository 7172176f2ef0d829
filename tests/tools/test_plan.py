"""What a run will cost: work counted without weights, held to published figures and to what real tensors do."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from stages.base.params import BaseParams
from stages.core.errors import StageError
from stages.tools import plan as tool
from stages.tools.blueprints import PRESETS, Blueprint, blueprint_of, read_blueprint
from stages.tools.costs import LEAST, fits, hours_of, largest_batch, memory_of, state_bytes, with_params, work_of
from stages.tools.dataset import read_dataset
from stages.tools.hardware import calibrate, read_table
from stages.tools.planning import make_plan
from stages.tools.published import NEAR, check
from stages.tools.units import duration, gigabytes, money, short
from stages.tools.workload import Workload, measure
from stages.train.launch import read_compute
from stages.train.optimizers import make_optimizers
from stages.train.params import TrainParams
from tests.conftest import ROOT

TABLE = read_table(ROOT / "compute" / "hardware.yaml")


@pytest.fixture(scope="module")
def tiny() -> Blueprint:
    return blueprint_of(BaseParams(model="random:tiny"), ROOT / "models" / "tiny-sd", ROOT / "models" / "imported")


def work(plan: Blueprint, side: int = 32, **knobs: Any) -> Workload:
    return measure(plan, with_params(TrainParams(), **knobs), side)


def test_stable_diffusion_is_as_published() -> None:
    """Weights as the checkpoints have them; FLOPs as facts of the field: 803 G a forward pass of the UNet at 512 px."""
    counted = work(PRESETS["sd15"], 512)
    assert counted.parts == {"unet": 859_520_964, "vae": 83_653_863, "text_encoder": 123_060_480}
    assert counted.denoise == pytest.approx(803e9, rel=0.01)
    assert counted.encode == pytest.approx(1117e9, rel=0.01)
    assert counted.decode == pytest.approx(2515e9, rel=0.01)
    assert counted.read == pytest.approx(13.3e9, rel=0.01)
    assert 2.9 < counted.step.training / counted.step.forward < 3.2


@pytest.mark.parametrize(
    ("name", "weights"),
    [("sd21", {"unet": 865_910_724}), ("sdxl", {"unet": 2_567_463_684, "text_encoder_2": 694_659_840})],
)
def test_presets_have_the_published_number_of_weights(name: str, weights: dict[str, int]) -> None:
    preset = PRESETS[name]
    with torch.device("meta"):
        parts = {"unet": preset.make_denoiser(), **{part: preset.make_encoder(part) for part in preset.encoders}}
    found = {part: sum(weight.numel() for weight in parts[part].parameters()) for part in weights}
    assert found == weights


def test_stable_diffusion_3_5_medium_has_its_two_and_a_half_billion() -> None:
    """As its card says; a tenth of them are the table of positions, which isn't learned."""
    with torch.device("meta"):
        network = PRESETS["sd35"].make_denoiser()
    found = sum(each.numel() for each in [*network.parameters(), *network.buffers()])
    assert found == pytest.approx(2.47e9, rel=0.005)


@pytest.mark.slow
def test_published_runs_within_a_quarter() -> None:
    found = list(check(TABLE))
    tuned = [one for one in found if one.run.tuned]
    assert len(tuned) == 5
    for one in tuned:
        assert abs(one.ratio - 1) <= NEAR, one.run.name
    for one in found:
        if not one.run.tuned:
            assert one.ratio < 1 - NEAR, "what wasn't tuned took longer"
    assert len({(one.run.gpu, TABLE.hardware[one.run.gpu].utilisation) for one in found}) == 2
    assert next(one for one in found if one.run.name.startswith("SD v1")).implied == pytest.approx(0.04, abs=0.005)


def test_activations_are_those_of_real_tensors(tiny: Blueprint) -> None:
    """Bytes held for the backward pass by a real network on this CPU, against those counted without data."""
    counted = work(tiny).step
    network = tiny.make_denoiser().train()
    own = {weight.data_ptr() for weight in network.parameters()}
    held: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        kept.append(tensor)
        return tensor

    kept: list[torch.Tensor] = []  # else an address could be that of two
    small = 32 // tiny.factor
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        network(torch.zeros(4, 4, small, small), torch.ones(4), encoder_hidden_states=torch.zeros(4, 77, 32))
    assert 4 * counted.kept + counted.shared == pytest.approx(sum(held.values()), rel=0.02)


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor", "lion", "muon", "prodigy"])
def test_optimiser_state_is_what_the_optimiser_keeps(tiny: Blueprint, optimizer: str) -> None:
    params = TrainParams.model_validate(
        {"optimizer": optimizer, "learning_rate": 1.0 if optimizer == "prodigy" else 1e-5}
    )
    network = tiny.make_denoiser()
    optimizers = make_optimizers(params, network)
    for weight in network.parameters():
        weight.grad = torch.ones_like(weight)
    for one in optimizers:
        one.step()
    kept = {
        value.data_ptr(): value.nbytes
        for one in optimizers
        for state in one.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor) and value.numel() > 1
    }
    told = state_bytes(measure(tiny, params, 32), params)
    if optimizer == "adafactor":
        assert sum(kept.values()) < 0.15 * 4 * sum(weight.numel() for weight in network.parameters())
    else:
        assert told == pytest.approx(sum(kept.values()), rel=0.02)


def test_methods_cost_what_they_should(tiny: Blueprint) -> None:
    full, lora = work(tiny), work(tiny, method="lora", lora={"rank": 2, "alpha": 2})
    assert lora.weights < full.weights / 10
    assert lora.frozen == full.weights
    assert full.step.forward < lora.step.training < full.step.training, "no gradients of frozen weights"
    less = work(tiny, gradient_checkpointing=True)
    assert less.step.kept < full.step.kept
    assert full.step.training < less.step.training < 1.5 * full.step.training
    priors = work(tiny, method="dreambooth", prior={"prompt": "a dog"})
    assert priors.step.training == 2 * full.step.training
    half = work(tiny, precision="bf16")
    assert half.step.kept < full.step.kept
    assert half.step.training == full.step.training
    words = work(tiny, method="textual_inversion", words=[{"token": "<a>", "initialiser": "b"}])
    assert words.weights == 32
    assert words.step.training > lora.step.forward
    control = work(tiny, method="controlnet")
    assert control.frozen == full.weights < control.weights, "in so small a UNet what reads the condition is most"
    assert work(tiny, method="vae").weights == tiny.make_vae().num_parameters()
    with pytest.raises(StageError, match="clip is not counted"):
        work(tiny, method="clip")


@pytest.mark.parametrize("name", ["tiny-sdxl", "tiny-sd3"])
def test_every_family_is_counted(name: str) -> None:
    plan = blueprint_of(BaseParams(model=f"random:{name}"), ROOT / "models" / "tiny-sd", ROOT)
    counted = work(plan)
    assert counted.denoise > 0
    assert counted.read > 0
    assert counted.step.training > 2 * counted.step.forward


def test_hours_follow_work_speed_and_price(tiny: Blueprint) -> None:
    counted, params = work(tiny), TrainParams(precision="bf16", steps=100_000, batch_size=4096)
    row = TABLE.hardware["A100"].model_copy(update={"gpu": False})
    share = work_of(counted, params, 1000, 100)
    one = hours_of(share, counted, params, row, TABLE)
    twice = row.model_copy(update={"half": 2 * row.half, "bandwidth": 2 * row.bandwidth})
    assert hours_of(share, counted, params, twice, TABLE) == pytest.approx(one / 2, rel=0.01)
    small = TrainParams(precision="bf16", steps=1000, batch_size=1)
    waiting = hours_of(work_of(counted, small, 0, 0), counted, small, TABLE.hardware["H100"], TABLE)
    assert waiting >= 1000 * LEAST / 3600, "kernels take their time to start"
    assert share.training == 100_000 * 4096 * counted.step.training
    assert work_of(counted, params, 2000, 100).encoding == 2 * share.encoding


def test_batch_that_fits(tiny: Blueprint) -> None:
    counted = work(tiny)
    row = TABLE.hardware["L4"].model_copy(update={"memory": 2.0})
    batch = largest_batch(counted, TrainParams(), row)
    assert fits(memory_of(counted, TrainParams(batch_size=batch)), row)
    assert not fits(memory_of(counted, TrainParams(batch_size=2 * batch)), row)


def test_split_weights_need_less(tiny: Blueprint) -> None:
    counted = work(tiny)
    alone, split = memory_of(counted, TrainParams()), memory_of(counted, TrainParams(), 4)
    assert split.optimiser == alone.optimiser / 4
    assert split.activations == alone.activations


def test_calibration_measures(tiny: Blueprint) -> None:
    counted, network = work(tiny), tiny.make_denoiser()

    def losses(count: int) -> torch.Tensor:
        answer: torch.Tensor = network(
            torch.randn(count, 4, 4, 4), torch.ones(count), encoder_hidden_states=torch.randn(count, 77, 32)
        ).sample
        return answer

    speed = calibrate(network, losses, counted.step.training, 2, "no", 0.2)
    assert 1e6 < speed < 1e13


def test_pictures_by_lock_by_word_and_by_source(tmp_path: Path) -> None:
    tree: dict[str, Any] = {
        "collect": {"sources": [{"kind": "openmoji"}]},
        "clean": {},
        "preprocess": {"resolution": 64},
    }
    assert read_dataset(tree, None, tmp_path).rows == 3953
    assert read_dataset(tree, 100, tmp_path).rows == 100
    tree["preprocess"]["flip"] = True
    assert read_dataset(tree, 100, tmp_path).rows == 195, "what is held out isn't mirrored"
    folder = {**tree, "collect": {"sources": [{"kind": "folder", "name": "mine"}]}}
    found = read_dataset(folder, None, tmp_path)
    assert found.rows is None
    assert "--pictures" in found.source
    (tmp_path / "data" / "sources" / "mine").mkdir(parents=True)
    (tmp_path / "data" / "sources" / "mine" / "a.JPG").touch()
    (tmp_path / "data" / "sources" / "mine" / "a.txt").touch()
    assert read_dataset({**folder, "preprocess": {}}, None, tmp_path).rows == 1
    made: dict[str, Any] = {
        name: {"params": {"params.yaml": {name: tree[name]}}} for name in ("collect", "clean", "preprocess")
    }
    made["collect"]["outs"] = [{"path": "data/raw", "size": 77}]
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump({"stages": made}))
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "preprocess.json").write_text('{"rows": 12, "validation": 2}')
    found = read_dataset(tree, None, tmp_path)
    assert (found.rows, found.train, found.measured) == (12, 10, {"data/raw": 77})
    assert read_dataset({**tree, "clean": {"min_side": 9}}, None, tmp_path).measured == {}


def test_the_plan_reads_well(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    tool.main(["--params", "tests/tiny.yaml"])
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 100
    for word in (
        "pictures",
        "steps",
        "memory",
        "disk",
        "latents stored once",
        "spot price",
        "On a laptop?",
        "RTX 4090",
    ):
        assert word in text
    with pytest.raises(StageError, match="is not in compute"):
        tool.main(["--on", "B900"])


def test_a_hub_id_that_is_not_known_says_what_to_do(tmp_path: Path) -> None:
    known = BaseParams(model=f"hub:stabilityai/stable-diffusion-xl-base-1.0@{'0' * 40}")
    assert blueprint_of(known, tmp_path, tmp_path) is PRESETS["sdxl"]
    other = BaseParams(model=f"hub:somebody/something@{'0' * 40}")
    with pytest.raises(StageError, match="dvc repro base"):
        blueprint_of(other, tmp_path, tmp_path)
    assert read_blueprint(ROOT / "models" / "tiny-sd", "x").factor == 8


def test_every_recipe_can_be_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of Stable Diffusion 1.5 share one count a method: only their configuration is looked at."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("stages.tools.planning.measure", lambda plan, params, side: (plan.name, params.method, side))
    for file in sorted((ROOT / "recipes").glob("*.yaml")):
        assert make_plan(file, 1000, None, TABLE).work


def test_the_table_is_no_configuration_of_accelerate() -> None:
    with pytest.raises(StageError, match="num_processes"):
        read_compute(ROOT / "compute" / "hardware.yaml")


def test_a_broken_table_is_said_as_such(tmp_path: Path) -> None:
    path = tmp_path / "hardware.yaml"
    path.write_text((ROOT / "compute" / "hardware.yaml").read_text().replace("utilisation: 0.28", "utilisation: 28"))
    with pytest.raises(StageError, match="less than or equal to 1"):
        read_table(path)


def test_numbers_as_people_say_them() -> None:
    assert [duration(hours) for hours in (1 / 3600, 0.5, 2, 100, 20_000)] == [
        "1 s",
        "30 min",
        "2 h",
        "4.2 days",
        "2.3 years",
    ]
    assert (gigabytes(5e6), gigabytes(2.5e9), gigabytes(4e10)) == ("5 MB", "2.5 GB", "40 GB")
    assert (money(2.0, 3.0), money(None, 3.0), money(1.0, 0.001), money(2, 1000)) == ("$6.00", "-", "<$0.01", "$2,000")
    assert short(803e9) == "803 G"
