"""What each way to save is worth on the very configuration, and whether a laptop will do."""

from dataclasses import replace

from stages.tools.costs import MARGIN, OVERHEAD, fits, hours_of, largest_batch, memory_of, work_of
from stages.tools.hardware import Hardware, this_machine
from stages.tools.planning import Plan
from stages.tools.units import duration, gigabytes, money

A_NIGHT, A_WEEKEND = 12.0, 60.0  # hours that a laptop can be left alone


def savings(plan: Plan, row: Hardware) -> list[tuple[str, str]]:
    """What each is worth on this configuration, on one hardware."""
    train, work = plan.train, plan.work
    hours, memory = plan.hours(row), memory_of(work, train)
    samples = plan.samples
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


def laptop(plan: Plan) -> list[tuple[str, str]]:
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
        why = (
            duration(hours) if room else f"{gigabytes(MARGIN * memory.total + OVERHEAD)} don't fit {one.memory:.0f} GB"
        )
        said.append((name, f"{word}: {why}"))
    return said
