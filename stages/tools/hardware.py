"""What hardware does and costs: compute/hardware.yaml, and what a run of half a minute measured here."""

import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch
import yaml
from pydantic import Field

from stages.core.errors import StageError
from stages.core.files import write_json
from stages.core.params import Section, Yaml12Loader, parse_section
from stages.tools.counting import HALF

MEASURED = Path(".dvc", "tmp", "darkroom", "calibration.json")  # of this machine: never shared
SECONDS = 30.0


class Hardware(Section):
    """One row. utilisation: of `half`. bf16: whether it computes in it. from: where the utilisation is from."""

    memory: float = Field(gt=0, description="GB")
    half: float = Field(gt=0, description="TFLOP/s at most in half precision")
    single: float = Field(gt=0, description="TFLOP/s at most in float32")
    bandwidth: float = Field(gt=0, description="GB/s")
    utilisation: float = Field(gt=0, le=1)
    price: float | None = Field(None, ge=0, description="USD an hour")
    spot: float | None = Field(None, ge=0, description="USD an hour")
    bf16: bool = True
    laptop: bool = False
    gpu: bool = True
    source: str = Field("", alias="from")


class Core(Section):
    """One core of a processor."""

    single: float = Field(gt=0)
    bandwidth: float = Field(gt=0)
    utilisation: float = Field(gt=0, le=1)


class Table(Section):
    """The whole file."""

    as_of: str
    prices: str
    single_utilisation: float = Field(gt=0, le=1)
    hardware: dict[str, Hardware]
    core: Core

    def speed(self, row: Hardware, precision: str) -> float:
        """FLOP/s that training gets."""
        if precision == "no":
            return row.single * self.single_utilisation * 1e12
        return row.half * row.utilisation * 1e12


def read_table(path: Path) -> Table:
    """Raises StageError that names the fault."""
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader=Yaml12Loader)  # noqa: S506 - a SafeLoader
    except (OSError, yaml.YAMLError) as error:
        raise StageError(str(path), f"can't be read ({error})".replace("\n", " "), "restore it: git checkout") from None
    try:
        return parse_section(Table, "hardware", tree)
    except StageError as error:
        raise StageError(str(path), error.what, "see the file's first lines") from None


def this_machine(table: Table, precision: str) -> tuple[str, Hardware, float | None]:
    """Its name, what is known or assumed of it, and FLOP/s measured here, if any."""
    name, measured = device_name(), read_measured().get(device_name(), {}).get(precision)
    if torch.cuda.is_available():
        known = next((row for label, row in table.hardware.items() if label.replace("RTX ", "") in name), None)
        memory = torch.cuda.get_device_properties(0).total_memory / 1e9
        if known is None:
            known = table.hardware["RTX 3090"].model_copy(update={"price": None, "spot": None, "source": "as RTX 3090"})
        return f"here: {name}", known.model_copy(update={"memory": memory}), measured
    cores, core = psutil.cpu_count(logical=False) or 1, table.core
    row = {
        "memory": psutil.virtual_memory().total / 1e9,
        "half": core.single * cores,
        "single": core.single * cores,
        "bandwidth": core.bandwidth * cores,
        "utilisation": core.utilisation,
        "laptop": True,
        "gpu": False,
        "from": "assumed (--calibrate)",
    }
    return f"this CPU, {cores} cores", Hardware.model_validate(row), measured


def device_name() -> str:
    """The GPU, or the processor."""
    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else platform.processor() or platform.machine()


def read_measured() -> dict[str, dict[str, float]]:
    """FLOP/s by device and precision; nothing if nothing was measured."""
    try:
        return dict(json.loads(MEASURED.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def note_measured(precision: str, speed: float) -> None:
    """Keep what was measured on this machine."""
    known: dict[str, Any] = read_measured()
    MEASURED.parent.mkdir(parents=True, exist_ok=True)
    write_json(MEASURED, known | {device_name(): known.get(device_name(), {}) | {precision: speed}})


def calibrate(
    network: torch.nn.Module,
    losses: Callable[[int], torch.Tensor],
    flops: int,
    batch: int,
    precision: str,
    seconds: float,
) -> float:
    """FLOP/s of training `network`, forward, backward and AdamW, for so many seconds after two steps to warm up.

    losses: of so many pictures, on the device. flops: of one picture's pass forward and backward.
    """
    device = next(network.parameters()).device
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-9, fused=True)

    def step() -> None:
        with torch.autocast(device.type, HALF.get(precision, torch.bfloat16), enabled=precision in HALF):
            loss = losses(batch)
        torch.autograd.backward(loss.float().square().mean())
        optimizer.step()
        optimizer.zero_grad()

    def settled() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    for _ in range(2):
        step()
    start, steps = settled(), 0
    while (spent := settled() - start) < seconds or not steps:
        step()
        steps += 1
    return steps * batch * flops / spent
