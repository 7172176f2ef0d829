"""The training loop: at every step it depends on the state before, the step's number and the data; on nothing else."""

import math
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from PIL import Image

from stages.core.draws import seed_of, uniform
from stages.core.engine import progress
from stages.core.errors import StageError
from stages.train.optimizers import make_optimizers
from stages.train.order import rows_of
from stages.train.params import TrainParams
from stages.train.record import Record


class Objective(Protocol):
    """What is learned: a model, how wrong it is on which rows, and what can be seen of it. One a method.

    Its length is the number of training rows; groups holds them apart by picture size: a batch is of one.
    digest stands for what it reads, without the base.
    """

    model: torch.nn.Module

    def __len__(self) -> int: ...

    @property
    def digest(self) -> str: ...

    @property
    def groups(self) -> Sequence[Sequence[int]]: ...

    def losses(self, samples: Sequence[int], rows: Sequence[int]) -> tuple[torch.Tensor, list[str]]:
        """The losses (B,) of these rows, and their keys; every draw is derived from sample number and key."""

    def validate(self) -> dict[str, float]:
        """Figures on held-out rows, `loss` among them; none where none are held out."""

    def preview(self) -> Image.Image | None:
        """Something to look at."""

    def save(self, weights: dict[str, torch.Tensor], about: dict[str, Any], out: Path) -> None:
        """Write a whole model folder with these weights in their place."""


def run_loop(params: TrainParams, objective: Objective, record: Record) -> dict[str, torch.Tensor]:
    """Train to the last step, from the record's state if it has one; give back the weights to keep.

    Raises StageError, naming step and pictures, when the loss is no number.
    """
    accelerator = Accelerator(mixed_precision=params.precision)
    if accelerator.num_processes > 1:
        raise StageError(
            "train", f"{accelerator.num_processes} processes", "start it with one: it can't share work yet"
        )
    network = objective.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch knows it, its stubs don't
    optimizers = make_optimizers(params, network)
    state = record.state
    if state.step:
        network.load_state_dict(state.weights)
        for optimizer, saved in zip(optimizers, state.optimizers, strict=True):
            optimizer.load_state_dict(saved)
        print(f"going on after step {state.step}")
    else:
        state.average = {name: weight.detach().clone() for name, weight in network.named_parameters()}
    network, *optimizers = accelerator.prepare(network, *optimizers)
    state.average = {name: weight.to(accelerator.device) for name, weight in state.average.items()}
    weights = dict(network.named_parameters())

    if accelerator.scaler is not None and state.scaler:
        accelerator.scaler.load_state_dict(state.scaler)
    if not state.step:
        look(params, objective, record)
    with progress() as bar, hold_signals() as stop:
        task = bar.add_task("train", total=params.steps, completed=state.step)
        for step in range(state.step, params.steps):
            network.train()
            for group in (group for optimizer in optimizers for group in optimizer.param_groups):
                group["lr"] = learning_rate(params, step)
            loss = 0.0
            for part in range(params.accumulation):
                with accelerator.autocast():
                    losses = batch_losses(params, objective, step * params.accumulation + part)
                accelerator.backward(losses.mean() / params.accumulation)
                loss += float(losses.detach().mean()) / params.accumulation
            accelerator.clip_grad_norm_(network.parameters(), params.max_grad_norm)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
            average_weights(params, state.average, weights, step)
            state.step = step + 1
            record.loss(loss)
            look(params, objective, record)
            if state.step % params.checkpoint_every == 0 or stop:
                state.weights = network.state_dict()
                state.optimizers = [optimizer.state_dict() for optimizer in optimizers]
                state.scaler = accelerator.scaler.state_dict() if accelerator.scaler is not None else {}
                record.save()
            if stop and state.step < params.steps:
                raise SystemExit(128 + stop[0])
            bar.advance(task)
    return state.average if params.ema_decay else {name: weight.detach() for name, weight in weights.items()}


def batch_losses(params: TrainParams, objective: Objective, number: int) -> torch.Tensor:
    """The losses (B,) of batch `number`. Raises StageError if one is no number."""
    samples = range(number * params.batch_size, (number + 1) * params.batch_size)
    losses, keys = objective.losses(samples, rows_of(number, params.batch_size, objective.groups, params.seed))
    if not losses.isfinite().all():
        broken = [key for key, loss in zip(keys, losses.tolist(), strict=True) if not math.isfinite(loss)]
        raise StageError(
            "train",
            f"the loss of batch {number} is no number (pictures {', '.join(broken[:3])})",
            "lower train.learning_rate, or use train.precision bf16 instead of fp16",
        )
    return losses


def choose_caption(params: TrainParams, captions: list[int], sample: int, key: str) -> int:
    """One of the picture's captions, or number 0, the empty one."""
    if not captions or uniform(params.seed, "caption dropout", sample, key) < params.caption_dropout:
        return 0
    return captions[seed_of(params.seed, "caption", sample, key) % len(captions)]


def learning_rate(params: TrainParams, step: int) -> float:
    """Of the optimiser step `step`, counted from 0: linear warm-up, then constant or half a cosine to 0."""
    if step < params.warmup_steps:
        return params.learning_rate * (step + 1) / params.warmup_steps
    if params.schedule == "constant":
        return params.learning_rate
    done = (step - params.warmup_steps) / max(1, params.steps - params.warmup_steps)
    return params.learning_rate * (1 + math.cos(math.pi * done)) / 2


@torch.no_grad()
def average_weights(
    params: TrainParams, average: dict[str, torch.Tensor], weights: dict[str, torch.nn.Parameter], step: int
) -> None:
    """Move the averaged weights towards the current ones; early on faster, as the first ones mean nothing.

    decay = min(ema_decay, (1 + step) / (10 + step)) (TensorFlow's ExponentialMovingAverage).
    """
    decay = min(params.ema_decay, (1 + step) / (10 + step))
    for name, weight in weights.items():
        average[name].lerp_(weight, 1 - decay)


def look(params: TrainParams, objective: Objective, record: Record) -> None:
    """Where it is time, validate and draw a preview with the weights that would be kept, and log both.

    Both are due at the start, at the end and every so many steps.
    """
    step, ends = record.state.step, (0, params.steps)
    validates = step in ends or step % params.validate_every == 0
    previews = params.preview_every > 0 and (step in ends or step % params.preview_every == 0)
    if not validates and not previews:
        return
    objective.model.eval()
    with swapped(objective.model, record.state.average if params.ema_decay else {}):
        if validates:
            record.validation(objective.validate())
        if previews and (picture := objective.preview()):
            record.preview(picture)


@contextmanager
def swapped(model: torch.nn.Module, average: dict[str, torch.Tensor]) -> Iterator[None]:
    """The model with the averaged weights in place of its own, for a while."""
    own = {name: weight.data for name, weight in model.named_parameters()}
    for name, weight in model.named_parameters():
        weight.data = average.get(name, weight.data)
    try:
        yield
    finally:
        for name, weight in model.named_parameters():
            weight.data = own[name]


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
