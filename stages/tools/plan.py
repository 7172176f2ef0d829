"""Say what params will cost before anything runs: pictures, steps, disk, memory, hours, money. `make plan`.

    python -m stages.tools.plan [--params recipes/sd15-full.yaml] [--pictures 5000] [--base models/base]
    python -m stages.tools.plan --calibrate   measure this machine for half a minute first
    python -m stages.tools.plan --check       the estimator against published runs

Work is counted on the real configuration without weights; speed is the table's (compute/hardware.yaml), or measured.
"""

import argparse
import sys
import textwrap
from pathlib import Path

import torch

from stages.core.errors import StageError
from stages.core.families.family import Text
from stages.tools.costs import MARGIN, OVERHEAD, fits, largest_batch, memory_of, state_bytes, work_of
from stages.tools.hardware import SECONDS, Hardware, Table, calibrate, note_measured, read_table, this_machine
from stages.tools.planning import Plan, make_plan
from stages.tools.published import NEAR, check
from stages.tools.savings import laptop, savings
from stages.tools.units import WIDTH, duration, gigabytes, money, paragraph, short, table_of
from stages.tools.workload import PRIORS

HARDWARE = Path("compute", "hardware.yaml")


def about(plan: Plan) -> list[tuple[str, str]]:
    """Pictures, steps, work, memory, disk."""
    train, work, data, memory = plan.train, plan.work, plan.data, plan.memory
    epochs = f", each picture {plan.samples / data.train:.3g} times" if data.train else ""
    rows = "unknown" if data.rows is None else f"{data.rows:,}"
    held = "" if data.held_out is None else f", {data.held_out:,} held out"
    share = work_of(work, train, data.rows, data.held_out)
    priors = ", with a class picture each" if train.prior.prompt and train.method in PRIORS else ""
    shared = f" and {gigabytes(work.step.shared)} of weights in {train.precision}" if work.step.shared else ""
    return [
        (
            "model",
            f"{plan.plan.name}, configuration {plan.plan.source}; method {train.method}: {short(work.weights)} of "
            f"{short(sum(work.parts.values()))} weights learn",
        ),
        ("pictures", f"{rows} of {plan.side} px{held} ({data.source})"),
        (
            "steps",
            f"{train.steps:,} of {train.batch_size * train.accumulation:,} pictures{priors}: "
            f"{plan.samples:,} seen{epochs}",
        ),
        (
            "work",
            f"{short(work.step.training)}FLOP a picture, forward and backward; all {short(share.total)}FLOP: training "
            f"{share.training / share.total:.0%}, encoding {share.encoding / share.total:.0%}, validation and previews "
            f"{share.looking / share.total:.0%}",
        ),
        (
            "memory",
            f"{gigabytes(memory.total)} on a GPU: weights {gigabytes(memory.weights)}, gradients "
            f"{gigabytes(memory.gradients)}, {train.optimizer} {gigabytes(memory.optimiser)}, average "
            f"{gigabytes(memory.average)}, activations {gigabytes(work.step.kept * memory.pictures)} of "
            f"{memory.pictures} pictures{shared}",
        ),
        ("disk", disk(plan)),
    ]


def disk(plan: Plan) -> str:
    """Bytes of what the pipeline writes: in dvc.lock, or by formula."""
    parts = disk_bytes(plan)
    said = ", ".join(f"{name} {'unknown' if size is None else gigabytes(size)}" for name, size in parts.items())
    total = gigabytes(sum(size or 0 for size in parts.values()))
    return f"{total}: {said}; as much again where the cache can't link (make doctor says)"


def disk_bytes(plan: Plan) -> dict[str, float | None]:
    """Of each output; None where it isn't known. Finished pictures at most, as PNG; a caption a picture."""
    work, train, data, model = plan.work, plan.train, plan.data, plan.plan
    rows, small = data.rows, plan.side // model.factor
    stored = 2 if plan.params["encode"].dtype == "float16" else 4
    latents = 2 * model.vae.get("latent_channels", 4) * small * small * stored
    width = int(model.denoiser.get("joint_attention_dim") or model.denoiser.get("cross_attention_dim") or 0)
    caption = model.text_length * width * stored
    base = 4.0 * sum(work.parts.values())
    trained = base - (4 - (4 if train.save_dtype == "float32" else 2)) * work.parts[model.family.denoiser]
    return {
        "raw": data.measured.get("data/raw"),
        "finished": data.measured.get("data/processed") or (3 * rows * plan.side**2 if rows else None),
        "latents": (latents + caption) * rows if rows else None,
        "base": base,
        "trained": trained,
        "merged": len(plan.params["merge"].root) * trained,
        "state while training": 4 * work.weights * (2 if train.ema_decay else 1) + state_bytes(work, train),
    }


def rows_of(plan: Plan) -> list[tuple[str, ...]]:
    """A line a hardware: name, does it fit, hours, money."""
    lines: list[tuple[str, ...]] = [("hardware", "memory", "fits", "hours", "on demand", "spot", "utilisation")]
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
    memory = plan.memory
    if fits(memory, row):
        return "yes"
    batch = largest_batch(plan.work, plan.train, row)
    return f"no, {batch} would" if batch else "no"


def show(plan: Plan, path: Path, name: str) -> str:
    """The whole plan as text."""
    lines = [f"{path}, prices of {plan.table.as_of} ({HARDWARE})", ""]
    lines += [paragraph(label, text) for label, text in about(plan)]
    lines += ["", table_of(rows_of(plan))]
    if plan.processes > 1:
        lines.append(f"{plan.processes} share the work: 1/{plan.processes} of the hours each, the same money, at best")
    lines += ["", f"What each saving is worth here, on one {name}:"]
    lines.append(table_of([(f"  {what}", worth) for what, worth in savings(plan, plan.table.hardware[name])]))
    lines += ["", "On a laptop?", table_of([(f"  {what}", word) for what, word in laptop(plan)]), "", *unknown(plan)]
    return "\n".join(lines)


def unknown(plan: Plan) -> list[str]:
    """What the figures leave out."""
    notes = [
        f"Prices: {plan.table.prices}. Assumed utilisations may be wrong by half. Memory was never measured on a GPU: "
        "what is said to fit has a fifth to spare.",
        "Left out: collecting and cleaning, captions and scores by models, samples and merges, waiting for data, "
        "traffic between GPUs.",
    ]
    if plan.data.rows is None:
        notes.insert(0, f"Pictures: {plan.data.source}; without it encoding and disk lack them.")
    if plan.train.precision == "no" and plan.work.weights > 1e8:
        notes.append("train.precision is no: float32 everywhere. bf16 is several times as fast on recent GPUs.")
    return [textwrap.fill(note, WIDTH) for note in notes]


def measure_here(plan: Plan) -> float:
    """Train the plan's denoiser, with random weights, for half a minute on this machine. Raises StageError."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    _, row, _ = this_machine(plan.table, plan.train.precision)
    full = plan.changed(method="full", optimizer="adamw", ema_decay=0.0, batch_size=1, gradient_checkpointing=False)
    if not fits(memory_of(full.work, full.train), row):
        need = gigabytes(MARGIN * full.memory.total + OVERHEAD)
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
    lines: list[tuple[str, ...]] = [
        ("published run", "GPU", "hours", "here", "ratio", "$ published", "$ here", "implied")
    ]
    for one in check(table):
        run = one.run
        paid, said = (money(run.price, run.hours), money(run.price, one.hours)) if run.price else ("-", "-")
        verdict = "" if run.tuned else f" untuned, {table.hardware[run.gpu].utilisation / one.implied:.1f}x as long"
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
    said = (
        f"Tuned runs are to be within {NEAR:.0%}, with one utilisation a GPU; the others show what not tuning costs. "
        "Stable Diffusion 2 is said to have cost $200,000: probably its 200,000 A100 hours, as its card is quoted, "
        "taken for money. At $2 an hour they are $400,000. MosaicML trained its like for $31,230 to $33,874, and "
        "$7,600 for the latents."
    )
    return f"{table_of(lines)}\n\n{textwrap.fill(said, WIDTH)}"


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
