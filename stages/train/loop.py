"""The training loop: at every step it depends on the state before, the step's number and the data; on nothing else."""

import math
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from types import FrameType
from typing import Any, Protocol, TypeVar

import torch
from accelerate import Accelerator
from PIL import Image

from stages.core.draws import seed_of
from stages.core.engine import ahead
from stages.core.errors import StageError
from stages.train.averages import average_weights
from stages.train.bar import training_bar
from stages.train.optimizers import make_optimizers
from stages.train.order import rows_of
from stages.train.params import TrainParams
from stages.train.rates import learning_rate
from stages.train.record import Record
from stages.train.sharding import announced, blocks_of, gathered, received, restore, split_again, whole
from stages.train.state import State

Prepared = dict[str, torch.Tensor]  # a batch: what losses are worked out from, first dimension B each
Result = TypeVar("Result")


class Objective(Protocol):
    """What is learned: a model, how wrong it is on which rows, and what can be seen of it. One a method.

    Its length is the number of training rows; groups holds them apart by picture size: a batch is of one.
    digest stands for what it reads, without the base. rates: the modules that learn and each one's share of the rate.
    splits: whether a batch's losses are the same worked out in parts. frozen: modules that are used and don't learn.
    """

    @property
    def model(self) -> torch.nn.Module: ...

    @property
    def splits(self) -> bool: ...

    def __len__(self) -> int: ...

    @property
    def digest(self) -> str: ...

    @property
    def groups(self) -> Sequence[Sequence[int]]: ...

    @property
    def rates(self) -> Sequence[tuple[torch.nn.Module, float]]: ...

    @property
    def frozen(self) -> Sequence[torch.nn.Module]: ...

    def prepare(self, samples: Sequence[int], rows: Sequence[int]) -> tuple[list[str], Prepared]:
        """The keys of these rows, and tensors (B, ...) on the CPU; every draw is derived from sample number and key.

        `levels`, where there are any, are their places among the timesteps, 0 to 1.
        """

    def losses(self, prepared: Prepared) -> torch.Tensor:
        """The losses (B,) of prepared rows, on the device where they are."""

    def validate(self) -> dict[str, float]:
        """Figures on held-out rows, `loss` among them; none where none are held out."""

    def preview(self) -> Image.Image | None:
        """Something to look at."""

    def save(self, weights: dict[str, torch.Tensor], about: dict[str, Any], out: Any) -> None:
        """Write a whole model folder with these weights in their place."""


class Step(torch.nn.Module):
    """All that is worked out with a model as a module's forward pass: what wraps it for several processes sees it.

    Before it weights that are split are gathered; what goes in and comes out is of the types that it has by itself.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model, self._no_split_modules = model, blocks_of(model)

    def forward(self, work: Callable[[], Result]) -> Result:
        return work()


def run_loop(
    params: TrainParams, objective: Objective, record: Record, accelerator: Accelerator
) -> dict[str, torch.Tensor]:
    """Train to the last step, or until validation stalls, from the record's state if it has one.

    Gives back the weights to keep, by their names in the objective's model; those that don't learn are not among them.
    Raises StageError, naming step and pictures, when the loss is no number.
    """
    state = record.state
    place(params, objective, accelerator)
    step, *optimizers = accelerator.prepare(Step(objective.model), *make_optimizers(params, objective.rates))
    weights = {name: weight for name, weight in objective.model.named_parameters() if weight.requires_grad}
    if state.step:
        for name, weight in weights.items():
            weight.data.copy_(received(state.weights[name], weight.data))
        for optimizer, saved in zip(optimizers, state.optimizers, strict=True):
            restore(optimizer, saved)
        state.average = {name: received(value, weights[name].data) for name, value in state.average.items()}
        if accelerator.scaler is not None and state.scaler:
            accelerator.scaler.load_state_dict(state.scaler)
        state.weights, state.optimizers = {}, []  # their place in memory is free
        print(f"going on after step {state.step}")
    else:
        if params.ema_decay:
            state.average = {name: weight.detach().clone() for name, weight in weights.items()}
        state.micro = params.batch_size // accelerator.num_processes
        look(params, objective, step, record, weights, accelerator)
    objective.model.train()
    with training_bar(params, state.step, accelerator) as advance, hold_signals() as stop:
        for batches in ahead(prepared_steps(params, objective, state.step, accelerator)):
            for group in (group for optimizer in optimizers for group in optimizer.param_groups):
                group["lr"] = learning_rate(params, state.step) * group["factor"]
            losses = backward(params, objective, step, batches, state, accelerator)
            norm = whole(accelerator.clip_grad_norm_(weights.values(), params.max_grad_norm))
            taken = seen_by_all(accelerator, batches, losses, norm, bool(stop))
            refuse_broken(state.step, batches, losses, taken)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
            if params.ema_decay:
                average_weights(params, state.average, weights, state.step)
            state.step += 1
            record.step(taken.levels, taken.losses, taken.norm, learning_rate(params, state.step - 1))
            look(params, objective, step, record, weights, accelerator)
            if state.step % params.checkpoint_every == 0 or taken.stop:
                now = replace(
                    state,
                    weights={name: weight.detach() for name, weight in weights.items()},
                    optimizers=[optimizer.state_dict() for optimizer in optimizers],
                    scaler=accelerator.scaler.state_dict() if accelerator.scaler is not None else {},
                )
                record.save(State(**gathered(vars(now), accelerator.is_main_process)))
            if taken.stop and state.step < params.steps:
                raise SystemExit(128 + (stop[0] if stop else signal.SIGTERM))
            advance()
            if record.stalled(params.patience):
                print(f"stopped after step {state.step}: {params.patience} validations without a lower loss")
                break
    kept = gathered(kept_weights(params, state.average, weights), accelerator.is_main_process)
    return record.best_weights(kept) if params.keep == "best" else kept


def place(params: TrainParams, objective: Objective, accelerator: Accelerator) -> None:
    """Bring every module to the device, in the memory format that convolutions like, and have it do as params say."""
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(params.precision)
    device = accelerator.device
    layout = torch.contiguous_format if accelerator.is_fsdp2 else torch.channels_last  # rows are split off as they lie
    for used in (objective.model, *objective.frozen):
        used.to(device=device, memory_format=layout)  # type: ignore[call-overload]  # torch knows it, its stubs don't
        for weight in used.parameters():
            if half and device.type == "cuda" and not weight.requires_grad:
                weight.data = weight.data.to(half)  # it is only read, and in that type
            elif device.type == "cpu" and weight.requires_grad:
                weight.data = weight.data.clone()  # the file that it may be mapped from leaves memory
    for learned, _ in objective.rates:
        module: Any = learned
        if params.gradient_checkpointing and hasattr(module, "enable_gradient_checkpointing"):
            module.enable_gradient_checkpointing()
        elif params.gradient_checkpointing and hasattr(module, "gradient_checkpointing_enable"):
            module.gradient_checkpointing_enable()
        if params.compile:
            module.compile()


def prepared_steps(
    params: TrainParams, objective: Objective, first: int, accelerator: Accelerator
) -> Iterator[list[tuple[list[str], Prepared]]]:
    """For each step from `first` on, this process's share of its batches, in pinned memory where a GPU waits."""
    share = params.batch_size // accelerator.num_processes
    mine = slice(accelerator.process_index * share, (accelerator.process_index + 1) * share)
    for step in range(first, params.steps):
        batches = []
        for number in range(step * params.accumulation, (step + 1) * params.accumulation):
            rows = rows_of(number, params.batch_size, objective.groups, params.seed)
            samples = range(number * params.batch_size, (number + 1) * params.batch_size)
            keys, prepared = objective.prepare(samples[mine], rows[mine])
            if accelerator.device.type == "cuda":
                prepared = {name: value.pin_memory() for name, value in prepared.items()}
            batches.append((keys, prepared))
        yield batches


def backward(
    params: TrainParams,
    objective: Objective,
    step: Any,
    batches: list[tuple[list[str], Prepared]],
    state: State,
    accelerator: Accelerator,
) -> torch.Tensor:
    """Gradients of the step's mean loss, worked out `state.micro` rows at a time; the losses, (rows,).

    Where memory runs out, half as many rows are tried from then on; the step's batch stays what it is.
    Raises StageError when that can't help.
    """
    while True:
        try:
            return _backward(params, objective, step, batches, state, accelerator)
        except torch.OutOfMemoryError:
            can = state.micro > 1 and accelerator.num_processes == 1 and objective.splits
            if not can:
                advice = "lower train.batch_size and raise train.accumulation, or set train.gradient_checkpointing"
                raise StageError("train", f"memory runs out at {state.micro} pictures at once", advice) from None
        state.micro = (state.micro + 1) // 2
        step.zero_grad()
        torch.cuda.empty_cache()
        print(f"memory ran out: {state.micro} pictures at once from here on; batches stay as large as they are")


def _backward(
    params: TrainParams,
    objective: Objective,
    step: Any,
    batches: list[tuple[list[str], Prepared]],
    state: State,
    accelerator: Accelerator,
) -> torch.Tensor:
    parts = [
        {name: value[start : start + state.micro] for name, value in batch.items()}
        for keys, batch in batches
        for start in range(0, len(keys), state.micro)
    ]
    rows, losses = sum(len(keys) for keys, _ in batches), []
    for number, part in enumerate(parts):
        # Dropout, where a part of the model has some, draws from this: in a resumed run too.
        torch.manual_seed(seed_of(params.seed, "dropout", state.step, number, accelerator.process_index))
        moved = {name: value.to(accelerator.device, non_blocking=True) for name, value in part.items()}
        with nullcontext() if number == len(parts) - 1 else accelerator.no_sync(step):
            with accelerator.autocast():
                found = step(partial(objective.losses, moved))
            accelerator.backward(found.sum() / rows)
        losses.append(found.detach().float())
    return torch.cat(losses)


@dataclass(frozen=True)
class Taken:
    """A step as all processes see it. levels: of the losses, -1 where there are none. stop: one was asked to end."""

    losses: list[float]
    levels: list[float]
    norm: float
    stop: bool


def seen_by_all(
    accelerator: Accelerator,
    batches: list[tuple[list[str], Prepared]],
    losses: torch.Tensor,
    norm: torch.Tensor,
    stop: bool,
) -> Taken:
    """Every process's losses, and whether any was told to stop, in the one wait for the device that a step has."""
    levels = torch.cat([batch.get("levels", torch.full((len(keys),), -1.0)) for keys, batch in batches])
    device = losses.device
    ends = torch.stack([norm.detach().float().to(device), losses.new_tensor(float(stop))])
    mine = torch.cat([losses, levels.to(device, torch.float32), ends])
    everyone = accelerator.gather(mine).view(accelerator.num_processes, -1).tolist()
    rows = len(losses)
    return Taken(
        [loss for one in everyone for loss in one[:rows]],
        [level for one in everyone for level in one[rows : 2 * rows]],
        everyone[0][-2],
        any(one[-1] for one in everyone),
    )


def refuse_broken(number: int, batches: list[tuple[list[str], Prepared]], losses: torch.Tensor, taken: Taken) -> None:
    """Raises StageError, naming pictures, if a loss of step `number` is no number in any process."""
    if all(map(math.isfinite, taken.losses)):
        return
    keys = [key for some, _ in batches for key in some]
    broken = [key for key, loss in zip(keys, losses.tolist(), strict=True) if not math.isfinite(loss)]
    raise StageError(
        "train",
        f"the loss of step {number} is no number (pictures {', '.join(broken[:3]) or 'of another process'})",
        "lower train.learning_rate, or use train.precision bf16 instead of fp16",
    )


def kept_weights(
    params: TrainParams, average: dict[str, torch.Tensor], weights: dict[str, torch.nn.Parameter]
) -> dict[str, torch.Tensor]:
    """The weights that a training gives back if it ends now."""
    return average if params.ema_decay else {name: weight.detach() for name, weight in weights.items()}


def look(
    params: TrainParams,
    objective: Objective,
    step: Any,
    record: Record,
    weights: dict[str, torch.nn.Parameter],
    accelerator: Accelerator,
) -> None:
    """Where it is time, validate and draw a preview with the weights that would be kept, and log both.

    Both are due at the start, at the end and every so many steps. The first process's figures count in all of them.
    """
    number, ends = record.state.step, (0, params.steps)
    validates = number in ends or number % params.validate_every == 0
    previews = params.preview_every > 0 and (number in ends or number % params.preview_every == 0)
    if not validates and not previews:
        return
    objective.model.eval()
    kept = kept_weights(params, record.state.average, weights)
    with swapped(weights, kept), accelerator.autocast(), torch.no_grad():
        if validates:
            figures = announced(step(objective.validate))
            record.validation(figures, weights if params.keep == "best" else None)
        if previews and (record.shows or accelerator.is_fsdp2):  # split weights need every process
            record.preview(step(objective.preview))
        split_again(step.modules())
    objective.model.train()


@contextmanager
def swapped(weights: dict[str, torch.nn.Parameter], others: dict[str, torch.Tensor]) -> Iterator[None]:
    """The model with other weights in place of its own, and they with its own in theirs, for a while."""

    def exchange() -> None:
        for name, weight in weights.items():
            own = weight.data.clone()
            weight.data.copy_(others[name])
            others[name].copy_(own)

    exchange()  # of values: FSDP reads a split weight where it lies
    try:
        yield
    finally:
        exchange()


@contextmanager
def hold_signals() -> Iterator[list[int]]:
    """Ctrl-C and SIGTERM fill the list instead of ending the process: a step is never cut in half."""
    received: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        received.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
