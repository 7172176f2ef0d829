"""Resumable state: written whole or not at all, found again by what the training is made of."""

import hashlib
import json
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from stages.core.errors import StageError
from stages.core.files import folder_digest, scratch, sync
from stages.train.params import TrainParams

LIBRARIES = ("accelerate", "diffusers", "peft", "tokenizers", "torch", "transformers")
OPTIMIZERS = ("bitsandbytes", "lion-pytorch", "prodigyopt")  # where they are installed


@dataclass
class State:
    """Where a training is after `step` optimiser steps.

    curve: (step, name, value) of all that was logged. losses: (level, loss) of the pictures since the
    last logged mean. optimizers: their own states. scaler: of fp16's gradients. micro: pictures at once.
    layouts: (step, layout) of the processes from that step on.
    """

    step: int = 0
    weights: dict[str, torch.Tensor] = field(default_factory=dict)
    average: dict[str, torch.Tensor] = field(default_factory=dict)
    optimizers: list[dict[str, Any]] = field(default_factory=list)
    curve: list[tuple[int, str, float]] = field(default_factory=list)
    losses: list[tuple[float, float]] = field(default_factory=list)
    scaler: dict[str, Any] = field(default_factory=dict)
    micro: int = 1
    layouts: list[tuple[int, str]] = field(default_factory=list)


def fingerprint(params: TrainParams, *inputs: str) -> str:
    """What a training is made of: params, inputs' digests, code and the libraries that do the sums.

    On how many processes is left to `go_on`, which can say what the matter is.
    """
    params = params.model_copy(update={"compute": "", "switch_compute": False})
    code = [folder_digest(folder, "*.py") for folder in (Path(__file__).parent, Path(__file__).parents[1] / "core")]
    libraries = [*LIBRARIES, *(name for name in OPTIMIZERS if find_spec(name.replace("-", "_")))]
    parts = [params.model_dump_json(), *inputs, *code, *(f"{name} {version(name)}" for name in libraries)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def go_on(params: TrainParams, state: State, layout: str, folder: Path) -> None:
    """Let this layout of processes take the state's next steps.

    Raises StageError if it was reached by another one, which adds in another order and so ends with other bytes, and
    params don't allow it.
    """
    if state.layouts and state.layouts[-1][1] == layout:
        return
    if state.step and not params.switch_compute:
        raise StageError(
            "train.compute",
            f"step {state.step} was reached by {state.layouts[-1][1]}, and now there would be {layout}: "
            "the same curve, but not the bytes of one go",
            f"take as many, or set train.switch_compute: true to go on all the same, or delete {folder} to start anew",
        )
    state.layouts.append((state.step, layout))


@contextmanager
def state_folder(name: str, held: bool = True) -> Iterator[Path]:
    """The folder for one training's state, held by this process alone (or by another one of the same training).

    It lies outside the outputs: DVC removes those before each run. Raises
    StageError if another process works on the same training.
    """
    folder = scratch("train", name)
    if not held:
        yield folder
        return
    try:
        with FileLock(folder / "lock", timeout=0):
            yield folder
    except Timeout:
        raise StageError("train", "the same training runs in another process", "wait for it, or stop it") from None


def save_state(folder: Path, state: State) -> None:
    """Replace the saved state; a crash at any moment leaves the old one or the new one."""
    temporary = folder / "state.partial"
    try:
        with temporary.open("wb") as file:  # a file of Python's own: a full disk is an OSError that says so
            torch.save(vars(state), file)
        sync(temporary)
        temporary.replace(folder / "state.pt")
    finally:
        temporary.unlink(missing_ok=True)


def load_state(folder: Path) -> State | None:
    """The saved state, None if there is none. Raises StageError if the disk has damaged it."""
    path = folder / "state.pt"
    if not path.exists():
        return None
    try:
        return State(**torch.load(path, map_location="cpu", weights_only=True))
    except (RuntimeError, OSError, TypeError, EOFError, pickle.UnpicklingError, json.JSONDecodeError):
        raise StageError(str(path), "is damaged", "delete it to train from the start") from None
