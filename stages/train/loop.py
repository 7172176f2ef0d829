"""The training loop: at every step it depends on the state before, the step's number and the data; on nothing else."""

import math
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

import torch
from accelerate import Accelerator
from diffusers import DDPMScheduler, UNet2DConditionModel

from stages.core.draws import seed_of, uniform
from stages.core.engine import progress
from stages.core.errors import StageError
from stages.core.latents import Latents
from stages.core.noise import normal, permutation
from stages.core.objective import denoising_losses, validation_curve
from stages.train.params import TrainParams
from stages.train.record import Record


@dataclass(frozen=True)
class Data:
    """What is learned from. validation may be empty. scaling_factor: of the VAE."""

    train: Latents
    validation: Latents
    scaling_factor: float


def run_loop(
    params: TrainParams, data: Data, unet: UNet2DConditionModel, schedule: DDPMScheduler, record: Record
) -> dict[str, torch.Tensor]:
    """Train to the last step, from the record's state if it has one; give back the weights to keep.

    Raises StageError, naming step and pictures, when the loss is no number.
    """
    accelerator = Accelerator(mixed_precision=params.precision)
    if accelerator.num_processes > 1:
        raise StageError(
            "train", f"{accelerator.num_processes} processes", "start it with one: it can't share work yet"
        )
    unet = unet.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(
        unet.parameters(),
        lr=params.learning_rate,
        betas=(params.beta1, params.beta2),
        weight_decay=params.weight_decay,
        fused=True,
    )
    state = record.state
    if state.step:
        unet.load_state_dict(state.weights)
        optimizer.load_state_dict(state.optimizer)
        print(f"going on after step {state.step}")
    else:
        state.average = {name: weight.detach().clone() for name, weight in unet.named_parameters()}
    model, optimizer = accelerator.prepare(unet, optimizer)
    state.average = {name: weight.to(accelerator.device) for name, weight in state.average.items()}
    weights = dict(unet.named_parameters())

    if accelerator.scaler is not None and state.scaler:
        accelerator.scaler.load_state_dict(state.scaler)
    if not state.step:
        look(params, data, unet, schedule, record)
    with progress() as bar, hold_signals() as stop:
        task = bar.add_task("train", total=params.steps, completed=state.step)
        for step in range(state.step, params.steps):
            unet.train()
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(params, step)
            loss = 0.0
            for part in range(params.accumulation):
                losses = batch_losses(
                    params, data, model, schedule, step * params.accumulation + part, accelerator.device
                )
                accelerator.backward(losses.mean() / params.accumulation)
                loss += float(losses.detach().mean()) / params.accumulation
            accelerator.clip_grad_norm_(model.parameters(), params.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()
            average_weights(params, state.average, weights, step)
            state.step = step + 1
            record.loss(loss)
            look(params, data, unet, schedule, record)
            if state.step % params.checkpoint_every == 0 or stop:
                state.weights, state.optimizer = unet.state_dict(), optimizer.state_dict()
                state.scaler = accelerator.scaler.state_dict() if accelerator.scaler is not None else {}
                record.save()
            if stop and state.step < params.steps:
                raise SystemExit(128 + stop[0])
            bar.advance(task)
    return state.average if params.ema_decay else {name: weight.detach() for name, weight in weights.items()}


def batch_losses(
    params: TrainParams,
    data: Data,
    unet: UNet2DConditionModel,
    schedule: DDPMScheduler,
    number: int,
    device: torch.device,
) -> torch.Tensor:
    """The losses (B,) of batch `number`. Raises StageError if one is no number."""
    samples = range(number * params.batch_size, (number + 1) * params.batch_size)
    batch = data.train.read([row_of(sample, len(data.train), params.seed) for sample in samples])
    shape = tuple(batch.mean.shape[1:])
    named = list(zip(samples, batch.keys, strict=True))
    spread = torch.stack([normal(shape, params.seed, "posterior", *name) for name in named])
    noise = torch.stack([normal(shape, params.seed, "noise", *name) for name in named])
    most = schedule.config.num_train_timesteps
    timesteps = torch.tensor([seed_of(params.seed, "timestep", *name) % most for name in named])
    captions = [choose_caption(params, listed, *name) for listed, name in zip(batch.captions, named, strict=True)]
    losses = denoising_losses(
        unet,
        schedule,
        ((batch.mean + batch.std * spread) * data.scaling_factor).to(device),
        data.train.text(captions).to(device),
        noise.to(device),
        timesteps.to(device),
    )
    if not losses.isfinite().all():
        broken = [key for key, loss in zip(batch.keys, losses.tolist(), strict=True) if not math.isfinite(loss)]
        raise StageError(
            "train",
            f"the loss of batch {number} is no number (pictures {', '.join(broken[:3])})",
            "lower train.learning_rate, or use train.precision bf16 instead of fp16",
        )
    return losses


def row_of(sample: int, rows: int, seed: int) -> int:
    """Which row the sample numbered `sample` is: each epoch sees every row once, in an order of its own."""
    epoch, place = divmod(sample, rows)
    return _epoch_order(rows, seed, epoch)[place]


_orders: dict[tuple[int, int, int], list[int]] = {}


def _epoch_order(rows: int, seed: int, epoch: int) -> list[int]:
    """The order of one epoch; only the last one asked for is kept."""
    name = (rows, seed, epoch)
    if name not in _orders:
        _orders.clear()
        _orders[name] = permutation(rows, seed, "order", epoch).tolist()
    return _orders[name]


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


def look(params: TrainParams, data: Data, unet: UNet2DConditionModel, schedule: DDPMScheduler, record: Record) -> None:
    """Where it is time, validate and draw previews with the weights that would be kept, and log both.

    Both are due at the start, at the end and every so many steps.
    """
    step, ends = record.state.step, (0, params.steps)
    with swapped(unet, record.state.average if params.ema_decay else {}):
        if len(data.validation) and (step in ends or step % params.validate_every == 0):
            curve = validation_curve(
                unet,
                schedule,
                data.validation,
                data.scaling_factor,
                params.validation_pictures,
                params.validation_bins,
                params.seed,
            )
            record.validation(curve)
        if params.preview_prompts and params.preview_every and (step in ends or step % params.preview_every == 0):
            record.preview(unet)


@contextmanager
def swapped(unet: UNet2DConditionModel, average: dict[str, torch.Tensor]) -> Iterator[None]:
    """The model with the averaged weights in place of its own, for a while."""
    own = {name: weight.data for name, weight in unet.named_parameters()}
    for name, weight in unet.named_parameters():
        weight.data = average.get(name, weight.data)
    try:
        yield
    finally:
        for name, weight in unet.named_parameters():
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
