"""What a params file asks for, and the work counted for it."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stages.check.sections import SECTION_TYPES
from stages.core.params import parse_section, read_params
from stages.tools.blueprints import Blueprint, blueprint_of, read_blueprint
from stages.tools.costs import Memory, hours_of, memory_of, with_params, work_of
from stages.tools.dataset import Dataset, read_dataset
from stages.tools.hardware import Hardware, Table
from stages.tools.workload import Workload, measure
from stages.train.launch import read_compute
from stages.train.params import TrainParams


@dataclass(frozen=True)
class Plan:
    """What is asked for, and the work counted for it."""

    params: dict[str, Any]
    plan: Blueprint
    data: Dataset
    work: Workload
    processes: int
    splits: bool
    table: Table

    @property
    def train(self) -> TrainParams:
        params: TrainParams = self.params["train"]
        return params

    @property
    def side(self) -> int:
        return int(self.params["preprocess"].resolution)

    @property
    def samples(self) -> int:
        """Pictures seen."""
        return self.train.steps * self.train.batch_size * self.train.accumulation

    @property
    def memory(self) -> Memory:
        """On one GPU."""
        return memory_of(self.work, self.train, self.processes if self.splits else 1)

    def hours(self, row: Hardware, measured: float | None = None) -> float:
        """Of one such GPU, for everything."""
        share = work_of(self.work, self.train, self.data.rows, self.data.held_out)
        return hours_of(share, self.work, self.train, row, self.table, measured)

    def changed(self, side: int | None = None, **knobs: object) -> "Plan":
        """The same with other knobs of train, or another resolution; counted anew."""
        train = with_params(self.train, **knobs)
        finished = self.params["preprocess"].model_copy(update={"resolution": side or self.side})
        counted = {"batch_size", "accumulation", "steps"} >= set(knobs) and side is None
        work = self.work if counted else measure(self.plan, train, side or self.side)
        return replace(self, params={**self.params, "train": train, "preprocess": finished}, work=work)


def make_plan(path: Path, pictures: int | None, base: Path | None, table: Table) -> Plan:
    """Read and count. Raises StageError for what is wrong in params."""
    tree = read_params(path)
    params = {name: parse_section(kind, name, tree.get(name)) for name, kind in SECTION_TYPES.items()}
    if base:
        plan = read_blueprint(base, str(base))
    else:
        plan = blueprint_of(params["base"], Path("models/tiny-sd"), Path("models/imported"))
    train: TrainParams = params["train"]
    config = read_compute(Path("compute", f"{train.compute}.yaml"))
    return Plan(
        params,
        plan,
        read_dataset(tree, pictures, Path()),
        measure(plan, train, params["preprocess"].resolution),
        config["num_processes"],
        config["distributed_type"] == "FSDP",
        table,
    )
