"""Split weights, two machines, and states that another number of processes goes on from: the curve is that of one."""

import json
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from safetensors import safe_open

from tests.conftest import ROOT
from tests.train.runs import UNSTOPPED, curve_of, end_at, finish, start, states_of

pytestmark = pytest.mark.slow
UNET = Path("unet/diffusion_pytorch_model.safetensors")
PREVIEW = {"preview_every": 4, "preview_prompts": ["a drawing"], "preview_steps": 2}


@pytest.fixture(scope="module", autouse=True)
def whole_run(laid_project: Path) -> None:
    """Of eight steps by one process."""
    finish(start(laid_project, "cpu", 8, UNSTOPPED))


def assert_same_curve(project: Path, one: str, other: str) -> None:
    first, second = curve_of(project, one), curve_of(project, other)
    assert len(first) == len(second)
    assert ((first - second).abs() / first).max() < 1e-4


def same_bytes(project: Path, one: str, other: str, file: str) -> bool:
    return (project / one / file).read_bytes() == (project / other / file).read_bytes()


@pytest.mark.parametrize(
    ("compute", "knobs"),
    [
        ("fsdp", {"keep": "best", "validate_every": 2}),
        ("zero2", {"optimizer": "muon", "method": "lora", "lora": {"dora": True}, "text_encoder": {"learns": True}}),
        ("fsdp", {"optimizer": "adafactor", "method": "controlnet", "gradient_checkpointing": True}),
    ],
)
def test_split_weights_learn_the_same(project: Path, compute: str, knobs: dict[str, Any]) -> None:
    """And the averaged ones draw the same picture."""
    for name in ("one", compute):
        finish(start(project, name, 6, UNSTOPPED | PREVIEW | knobs))
    assert_same_curve(project, "one", compute)
    begun, one, other = (
        np.asarray(Image.open(project / name), dtype=float)
        for name in (
            "live-one/previews/0000000.png",
            "live-one/previews/0000004.png",
            f"live-{compute}/previews/0000004.png",
        )
    )
    assert np.abs(one - other).mean() < 0.1 * np.abs(one - begun).mean()


def test_split_weights_in_bfloat16_learn_nearly_the_same(project: Path) -> None:
    for name in ("one", "fsdp"):
        finish(start(project, name, 4, UNSTOPPED | {"precision": "bf16"}))
    first, second = curve_of(project, "one"), curve_of(project, "fsdp")
    assert ((first - second).abs() / first).max() < 1e-2


def test_killed_with_split_weights_it_ends_with_the_bytes_of_one_go(project: Path) -> None:
    finish(start(project, "fsdp", 8))
    shutil.copytree(project / "out-fsdp", project / "out-whole", dirs_exist_ok=True)
    process = start(project, "fsdp", 8)
    end_at(project, process, 3, lambda workers: workers[-1].kill())
    finish(process, status=1)
    said, _ = finish(start(project, "fsdp", 8))
    assert "going on after step" in said
    assert same_bytes(project, "out-whole", "out-fsdp", str(UNET))


@pytest.mark.parametrize(("first", "then"), [("two", "one"), ("fsdp", "two"), ("one", "fsdp")])
def test_another_number_of_processes_goes_on_where_it_may(project: Path, first: str, then: str) -> None:
    """It is refused in words where params don't say so, as it doesn't end with the bytes of one go."""
    process = start(project, first, 8)
    end_at(project, process, 3, lambda _: process.send_signal(signal.SIGTERM))
    process.communicate(timeout=120)
    _, errors = finish(start(project, then, 8), status=1)
    (line,) = errors.splitlines()
    assert line.startswith("error: train.compute: step ")
    assert "set train.switch_compute: true to go on all the same" in line
    said, _ = finish(start(project, then, 8, {"switch_compute": True}))
    assert "going on after step" in said
    assert_same_curve(project, "cpu", then)
    with safe_open(project / f"out-{then}" / UNET, "pt") as file:
        (about,) = (json.loads(value) for value in file.metadata().values())
    layouts = {"one": "1 process", "two": "2 processes", "fsdp": "2 processes with split weights"}
    (began, had), (switched, has) = about["processes"]
    assert (began, had, has) == (0, layouts[first], layouts[then])
    assert 3 <= switched < 8


def start_both(folders: tuple[Path, Path], compute: Path) -> list[subprocess.Popen[str]]:
    """A launcher a machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    return [
        start(folder, compute, 8, ACCELERATE_MACHINE_RANK=str(rank), ACCELERATE_MAIN_PROCESS_PORT=port)
        for rank, folder in enumerate(folders)
    ]


def hosts(folder: Path) -> Path:
    """compute/two-hosts.yaml with a process a machine."""
    config = yaml.safe_load((ROOT / "compute" / "two-hosts.yaml").read_text()) | {"num_processes": 2}
    file = folder / f"{folder.name}.yaml"
    file.write_text(yaml.safe_dump(config))
    return file


def test_two_machines_with_one_disk_follow_the_curve_of_one(project: Path, tmp_path: Path) -> None:
    compute = hosts(tmp_path)
    for process in start_both((project, project), compute):
        finish(process)
    assert_same_curve(project, "cpu", compute.stem)


def test_two_machines_with_disks_of_their_own_go_on_from_the_state_of_the_first(project: Path, tmp_path: Path) -> None:
    """And one with other data is refused."""
    second, compute = tmp_path / "second", hosts(tmp_path)
    shutil.copytree(project, second)
    processes = start_both((project, second), compute)
    end_at(project, processes[0], 3, lambda _: processes[0].send_signal(signal.SIGTERM))
    finish(processes[0], status=143)
    _, errors = finish(processes[1], status=1)
    assert errors == "error: train: was told to stop; run it again: it goes on from its last state\n"
    assert not states_of(second)
    for process in start_both((project, second), compute):
        said, _ = finish(process)
        assert "going on after step" in said
    assert_same_curve(project, "cpu", compute.stem)
    assert not (second / f"out-{compute.stem}").exists()
    (second / "base" / "README.md").write_text("Another base.")
    for process in start_both((project, second), compute):
        _, errors = finish(process, status=1)
        assert "machines differ in data, base, params, code or libraries" in errors
