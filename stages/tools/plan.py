"""Say what params will cost before anything runs: pictures, steps, disk, memory, hours, money. `make plan`.

    python -m stages.tools.plan [--params recipes/sd15-full.yaml] [--pictures 5000] [--base models/base]
    python -m stages.tools.plan --calibrate   measure this machine for half a minute first
    python -m stages.tools.plan --check       the estimator against published runs

Work is counted on the real configuration without weights; speed is the table's (compute/hardware.yaml), or measured.
"""

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from stages.check.sections import SECTION_TYPES
from stages.core.errors import StageError
from stages.core.params import parse_section, read_params
from stages.tools.blueprints import Blueprint, blueprint_of, read_blueprint
from stages.tools.costs import (
    OVERHEAD,
    fits,
    hours_of,
    largest_batch,
    memory_of,
    state_bytes,
    with_params,
    work_of,
)
from stages.tools.counting import HALF
from stages.tools.dataset import Dataset, read_dataset
from stages.tools.hardware import SECONDS, Hardware, Table, calibrate, note_measured, read_table, this_machine
from stages.tools.published import NEAR, check
from stages.tools.workload import PRIORS, Workload, measure
from stages.train.launch import read_compute
from stages.train.params import TrainParams

HARDWARE = Path("compute", "hardware.yaml")
A_NIGHT, A_WEEKEND = 12.0, 60.0  # hours that a laptop can be left alone


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


def about(plan: Plan) -> list[str]:
    """Pictures, steps, work, memory, disk."""
    train, work, data = plan.train, plan.work, plan.data
    samples = train.steps * train.batch_size * train.accumulation
    epochs = f", each picture {samples / data.train:.3g} times" if data.train else ""
    rows = "unknown" if data.rows is None else f"{data.rows:,}"
    held = "" if data.held_out is None else f", {data.held_out:,} held out"
    share = work_of(work, train, data.rows, data.held_out)
    memory = memory_of(work, train, plan.processes if plan.splits else 1)
    shared = memory.activations - work.step.kept * train.batch_size
    priors = ", with a class picture each" if train.prior.prompt and train.method in PRIORS else ""
    return [
        f"model     {plan.plan.name}, configuration {plan.plan.source}; method {train.method}: "
        f"{short(work.weights)} of {short(sum(work.parts.values()))} weights learn",
        f"pictures  {rows} of {plan.side} px{held} ({data.source})",
        f"steps     {train.steps:,} of {train.batch_size * train.accumulation:,} pictures{priors}: "
        f"{samples:,} seen{epochs}",
        f"work      {short(work.step.training)}FLOP a picture, forward and backward; all {short(share.total)}FLOP: training "
        f"{share.training / share.total:.0%}, encoding {share.encoding / share.total:.0%}, "
        f"validation and previews {share.looking / share.total:.0%}",
        f"memory    {gigabytes(memory.total)} on a GPU: weights {gigabytes(memory.weights)}, gradients "
        f"{gigabytes(memory.gradients)}, {train.optimizer} {gigabytes(memory.optimiser)}, average "
        f"{gigabytes(memory.average)},",
        f"          activations {gigabytes(memory.activations - shared)} of {memory.pictures} pictures"
        + (f" and {gigabytes(shared)} of weights in {train.precision}" if shared > 0 else ""),
        *disk(plan),
    ]


def disk(plan: Plan) -> list[str]:
    """Bytes of what the pipeline writes: in dvc.lock, or by formula."""
    work, train, data, model = plan.work, plan.train, plan.data, plan.plan
    measured, rows = data.measured, data.rows
    stored = 2 if plan.params["encode"].dtype == "float16" else 4
    small = plan.side // model.factor
    latents = 2 * model.vae.get("latent_channels", 4) * small * small * stored
    width = int(model.denoiser.get("joint_attention_dim") or model.denoiser.get("cross_attention_dim") or 0)
    caption = model.text_length * width * stored
    base = 4 * sum(work.parts.values())
    saved = 4 if train.save_dtype == "float32" else 2
    part = work.parts[model.family.denoiser]
    trained = base - (4 - saved) * part
    merged = len(plan.params["merge"].root) * trained
    state = 4 * work.weights * (2 if train.ema_decay else 1) + state_bytes(work, train)
    parts = {
        "raw": (measured.get("data/raw"), "as collected"),
        "finished": (measured.get("data/processed") or (3 * rows * plan.side**2 if rows else None), "at most"),
        "latents": ((latents + caption) * rows if rows else None, "a caption each"),
        "base": (base, ""),
        "trained": (trained, ""),
        "merged": (merged, ""),
        "state while training": (state, ""),
    }
    known = sum(size for size, _ in parts.values() if size)
    said = [f"{name} {gigabytes(size) if size else 'unknown'}" for name, (size, _) in parts.items()]
    return [
        f"disk      {gigabytes(known)}: {', '.join(said[:4])},",
        f"          {', '.join(said[4:])}; as much again where the cache can't link (make doctor says)",
    ]


def rows_of(plan: Plan) -> list[tuple[str, ...]]:
    """A line a hardware: name, does it fit, hours, money."""
    lines = [("hardware", "memory", "fits", "hours of one", "on demand", "spot", "utilisation")]
    here, row, measured = this_machine(plan.table, plan.train.precision)
    rows = [(name, known, None) for name, known in plan.table.hardware.items()]
    for name, known, speed in [*rows, (here, row, measured)]:
        hours = plan.hours(known, speed)
        lines.append(
            (
                name,
                f"{known.memory:.0f} GB",
                fit_words(plan, known),
                duration(hours),
                money(known.price, hours),
                money(known.spot, hours),
                f"measured: {speed / 1e12:.3g} TFLOP/s" if speed else known_words(plan, known),
            )
        )
    return lines


def known_words(plan: Plan, row: Hardware) -> str:
    """The utilisation that is reckoned with."""
    if plan.train.precision == "no":
        return f"{plan.table.single_utilisation:.0%} of float32, assumed"
    return f"{row.utilisation:.0%}, {row.source}"


def fit_words(plan: Plan, row: Hardware) -> str:
    """Whether training fits, and if not how many pictures at once would."""
    memory = memory_of(plan.work, plan.train, plan.processes if plan.splits else 1)
    if fits(memory, row):
        return "yes"
    batch = largest_batch(plan.work, plan.train, row)
    return f"no, {batch} would" if batch else "no"


def savings(plan: Plan, name: str, row: Hardware) -> list[tuple[str, str]]:
    """What each is worth on this configuration, on one hardware."""
    train, work = plan.train, plan.work
    hours, memory = plan.hours(row), memory_of(work, train)
    samples = train.steps * train.batch_size * train.accumulation
    found = []

    def versus(other: Plan) -> str:
        there = memory_of(other.work, other.train)
        return (
            f"{duration(other.hours(row))} and {gigabytes(there.total)} in place of "
            f"{duration(hours)} and {gigabytes(memory.total)}"
        )

    if train.method not in ("vae", "textual_inversion") and not train.text_encoder.learns:
        online = work_of(work, train, 0, plan.data.held_out)
        online = replace(online, encoding=samples * (work.encode + work.read))
        each = hours_of(online, work, train, row, plan.table)
        found.append(("latents stored once", f"already so: the encoders at every step would make it {duration(each)}"))
    batch = min(largest_batch(work, train, row), 4 * train.batch_size)
    if batch > train.batch_size and samples > batch:
        steps = max(1, round(samples / batch / train.accumulation))
        found.append((f"batches of {batch}", versus(plan.changed(batch_size=batch, steps=steps))))
    if train.method in ("full", "dreambooth"):
        found.append(("LoRA, not full", versus(plan.changed(method="lora"))))
    half = plan.side // 2
    if half % plan.plan.factor == 0 and half >= 8 * plan.plan.factor and train.steps > 1:
        first = plan.changed(side=half, steps=train.steps // 2)
        rest = plan.changed(steps=train.steps - train.steps // 2)
        both = first.hours(row) + rest.hours(row)
        found.append(
            (
                f"half the steps at {half} px",
                f"{duration(both)} in place of {duration(hours)}, first in a run of its own",
            )
        )
    if not train.gradient_checkpointing and hasattr(plan.plan.family.network, "enable_gradient_checkpointing"):
        found.append(("checkpointing", versus(plan.changed(gradient_checkpointing=True))))
    if train.precision == "no":
        found.append(("bf16", versus(plan.changed(precision="bf16", optimizer=train.optimizer))))
    if row.price and row.spot:
        found.append(
            (
                "spot price",
                f"{money(row.spot, hours)} in place of {money(row.price, hours)}; a run that is stopped goes on",
            )
        )
    return found


def laptop(plan: Plan) -> str:
    """Can I do this on a laptop? Plainly."""
    here, row, measured = this_machine(plan.table, plan.train.precision)
    known = [(name, one, None) for name, one in plan.table.hardware.items() if one.laptop]
    tried = [*known, *([(here, row, measured)] if row.laptop else [])]
    said = []
    for name, one, speed in tried:
        hours = plan.hours(one, speed)
        memory = memory_of(plan.work, plan.train, 1, on_gpu=False)
        room = fits(memory, one)
        word = "no" if not room or hours > A_WEEKEND else "over a weekend" if hours > A_NIGHT else "yes"
        why = duration(hours) if room else f"{gigabytes(memory.total + OVERHEAD)} don't fit {one.memory:.0f} GB"
        said.append(f"{name}: {word}, {why}")
    return "; ".join(said)


def table_of(lines: list[tuple[str, ...]]) -> str:
    """Columns side by side."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def short(number: float) -> str:
    """1,234,567,890 as 1.23 G."""
    for factor, unit in ((1e21, "Z"), (1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= factor:
            return f"{number / factor:.3g} {unit}"
    return f"{number:.3g} "


def gigabytes(size: float) -> str:
    """Bytes as people say them."""
    if size < 1e8:
        return f"{size / 1e6:.2g} MB" if size >= 1e5 else "0"
    return f"{size / 1e9:.2g} GB" if size < 1e10 else f"{size / 1e9:,.0f} GB"


def duration(hours: float) -> str:
    """Seconds, minutes, hours, days or years, two digits."""
    for least, factor, unit in ((24 * 730, 8766, "years"), (72, 24, "days"), (1.5, 1, "h"), (1 / 40, 1 / 60, "min")):
        if hours >= least:
            return f"{hours / factor:,.2g} {unit}" if hours / factor < 100 else f"{hours / factor:,.0f} {unit}"
    return f"{hours * 3600:.2g} s"


def money(price: float | None, hours: float) -> str:
    """USD; "-" where nobody rents it."""
    if price is None:
        return "-"
    cost = price * hours
    if cost < 0.01:
        return "<$0.01"
    return f"${cost:,.2f}" if cost < 100 else f"${cost:,.0f}"


def show(plan: Plan, path: Path, name: str) -> str:
    """The whole plan as text."""
    share = 1 / plan.processes
    lines = [f"{path}, prices of {plan.table.as_of} ({HARDWARE})", "", *about(plan), "", table_of(rows_of(plan))]
    if plan.processes > 1:
        lines.append(
            f"{plan.processes} of them share the work: {share:.0%} of the hours each, at the same price, at best"
        )
    row = plan.table.hardware[name]
    lines += ["", f"What each saving is worth here, on one {name}:"]
    found = savings(plan, name, row)
    lines.append(table_of([(f"  {what}", worth) for what, worth in found]))
    lines += ["", f"On a laptop? {laptop(plan)}."]
    lines += ["", *unknown(plan)]
    return "\n".join(lines)


def unknown(plan: Plan) -> list[str]:
    """What the figures leave out."""
    notes = [
        "Not in these figures: collecting and cleaning, captions and scores by models, samples and merges, waiting for",
        "data, traffic between GPUs. Utilisations that are assumed may be wrong by half; memory on GPUs was never measured.",
    ]
    if plan.data.rows is None:
        notes.insert(0, f"The number of pictures isn't known ({plan.data.source}): encoding and disk lack them.")
    if plan.train.precision == "no" and plan.work.weights > 1e8:
        notes.append("train.precision is no: float32 everywhere. bf16 is several times as fast on recent GPUs.")
    return notes


def measure_here(plan: Plan) -> float:
    """Train the plan's denoiser, with random weights, for half a minute on this machine. Raises StageError."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    _, row, _ = this_machine(plan.table, plan.train.precision)
    full = plan.changed(method="full", optimizer="adamw", ema_decay=0.0, batch_size=1, gradient_checkpointing=False)
    if not fits(memory_of(full.work, full.train), row):
        need = gigabytes(memory_of(full.work, full.train).total + OVERHEAD)
        raise StageError(
            "plan --calibrate",
            f"this model wants {need}, here are {row.memory:.0f} GB",
            "calibrate with --params of a smaller one of its family: what was measured is kept",
        )
    batch = min(plan.train.batch_size, largest_batch(full.work, full.train, row))
    network = plan.plan.make_denoiser().to(device, memory_format=torch.channels_last)
    small, family = plan.side // plan.plan.factor, plan.plan.family
    width, pooled = family.text_shape(network)

    def losses(count: int) -> torch.Tensor:
        from stages.core.families.family import Text

        def drawn(*shape: int) -> torch.Tensor:
            return torch.randn(count, *shape, device=device)

        text = Text(drawn(plan.plan.text_length, width), drawn(pooled) if pooled else None)
        noised = drawn(plan.plan.vae.get("latent_channels", 4), small, small)
        return family.answer(network, noised, torch.ones(count, device=device), text, drawn(6))

    speed = calibrate(network, losses, full.work.step.training, batch, plan.train.precision, SECONDS)
    note_measured(plan.train.precision, speed)
    return speed


def checked(table: Table) -> str:
    """The table of published runs."""
    lines = [("published run", "GPU", "hours", "here", "ratio", "$ published", "$ here", "implied utilisation")]
    for one in check(table):
        run = one.run
        paid, said = (money(run.price, run.hours), money(run.price, one.hours)) if run.price else ("-", "-")
        verdict = "" if run.tuned else f", untuned: {table.hardware[run.gpu].utilisation / one.implied:.1f}x the hours"
        lines.append(
            (
                run.name,
                run.gpu,
                f"{run.hours:,.0f}",
                f"{one.hours:,.0f}",
                f"{one.ratio:.2f}",
                paid,
                said,
                f"{one.implied:.0%}{verdict}",
            )
        )
    return table_of(lines) + (
        f"\n\nTuned runs are to be within {NEAR:.0%}, with one utilisation a GPU; the others show what not tuning costs.\n"
        "Stable Diffusion 2 is said to have cost $200,000: probably its 200,000 A100 hours (as its card is quoted) taken for\n"
        "money. At $2 an hour they are $400,000. MosaicML trained its like for $31,230 to $33,874, and $7,600 for latents."
    )


def main(arguments: list[str]) -> None:
    """Print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--pictures", type=int, help="how many there will be, where that isn't known")
    parser.add_argument("--base", type=Path, help="a diffusers folder, in place of base.model")
    parser.add_argument("--on", default="A100", help="hardware for which the savings are worked out")
    parser.add_argument("--calibrate", action="store_true")
    parser.add_argument("--check", action="store_true")
    said = parser.parse_args(arguments)
    table = read_table(HARDWARE)
    if said.check:
        print(checked(table))
        return
    if said.on not in table.hardware:
        raise StageError("--on", f"{said.on} is not in {HARDWARE}", f"take {', '.join(table.hardware)}")
    plan = make_plan(said.params, said.pictures, said.base, table)
    if said.calibrate:
        print(f"measured here: {measure_here(plan) / 1e12:.3g} TFLOP/s in precision {plan.train.precision}\n")
    print(show(plan, said.params, said.on))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except StageError as error:
        sys.exit(f"error: {error}")
