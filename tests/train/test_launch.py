"""What a compute file may ask for, and who may go on from whose state."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from stages.core.errors import StageError
from stages.train.launch import read_compute, split_weights
from stages.train.params import TrainParams
from stages.train.state import State, fingerprint, go_on
from tests.conftest import ROOT


@pytest.mark.parametrize(
    "file",
    sorted({*(ROOT / "compute").glob("*.yaml")} - {ROOT / "compute" / "hardware.yaml"}),
    ids=lambda file: file.stem,
)
def test_files_that_come_with_it_are_read(file: Path) -> None:
    assert read_compute(file)["num_processes"] >= 1


def test_what_is_no_file_of_a_known_kind_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    with pytest.raises(StageError, match="can't be read"):
        read_compute(file)
    file.write_text("num_processes: many\n")
    with pytest.raises(StageError, match="says no num_processes"):
        read_compute(file)
    file.write_text("num_processes: 2\ndistributed_type: DEEPSPEED\n")
    with pytest.raises(StageError, match=r"asks for DEEPSPEED; take MULTI_GPU, or FSDP .* compute/zero2\.yaml"):
        read_compute(file)


@pytest.mark.parametrize(
    ("knobs", "options", "said"),
    [
        ({"method": "vae"}, {}, r"train\.method: vae can't have split weights; take full, dreambooth"),
        ({"optimizer": "prodigy", "learning_rate": 1.0}, {}, r"train\.optimizer: prodigy can't have split weights"),
        ({"precision": "fp16"}, {}, r"train\.precision: fp16 can't have split weights; take no, bf16"),
        ({}, {"fsdp_version": 1}, "has to be of version 2"),
        ({}, {"fsdp_offload_params": True}, "fsdp_offload_params isn't supported"),
    ],
)
def test_what_can_not_be_split_is_refused(knobs: dict[str, Any], options: dict[str, Any], said: str) -> None:
    config = yaml.safe_load((ROOT / "compute" / "fsdp.yaml").read_text())
    config["fsdp_config"] |= options
    with pytest.raises(StageError, match=said):
        split_weights(TrainParams(**knobs), config)


def test_gradients_are_summed_in_full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FSDP_AUTO_WRAP_POLICY", "TRANSFORMER_BASED_WRAP")
    config = yaml.safe_load((ROOT / "compute" / "fsdp.yaml").read_text())
    policy: Any = split_weights(TrainParams(precision="bf16"), config).mixed_precision_policy
    assert (policy.param_dtype, policy.reduce_dtype, policy.output_dtype) == (torch.bfloat16, torch.float32, None)


def test_another_layout_goes_on_only_where_params_say_so(tmp_path: Path) -> None:
    state = State()
    go_on(TrainParams(), state, "2 processes", tmp_path)
    state.step = 7
    go_on(TrainParams(), state, "2 processes", tmp_path)
    assert state.layouts == [(0, "2 processes")]
    with pytest.raises(StageError, match="step 7 was reached by 2 processes, and now there would be 1 process"):
        go_on(TrainParams(), state, "1 process", tmp_path)
    go_on(TrainParams(switch_compute=True), state, "1 process", tmp_path)
    assert state.layouts == [(0, "2 processes"), (7, "1 process")]


def test_a_state_is_found_whatever_processes_left_it() -> None:
    same = fingerprint(TrainParams(compute="two"), "latents")
    assert same == fingerprint(TrainParams(compute="one", switch_compute=True), "latents")
    assert same != fingerprint(TrainParams(compute="two", steps=3), "latents")
