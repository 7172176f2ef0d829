"""Work in batches of one shape, remembered by content: what an item becomes depends on nothing beside it.

A forward pass gives other last bits at another batch size, since the libraries choose other kernels; at one size a
row's place and neighbours change nothing (tests/encode holds that on this CPU; on a GPU a fixed shape keeps the
kernels the same too, untested). So every batch is full, the last one filled up by repeating its last item, and what
was computed in an earlier run is what a run from nothing would compute.
"""

import platform
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Generic, TypeVar

import torch
from safetensors.torch import load, save

from stages.core.files import file_digest, folder_digest, scratch
from stages.core.models import best_device
from stages.core.reuse import Reuse
from stages.encode.params import EncodeParams

LIBRARIES = ("diffusers", "imagehash", "numpy", "pillow", "scipy", "torch", "transformers")

T = TypeVar("T")
P = TypeVar("P")
S = TypeVar("S", bound=Hashable)


@dataclass(frozen=True)
class Batch(Generic[P]):
    """Names of what is to be computed, the keys it is known by in messages, and the filled-up input."""

    names: list[str]
    keys: list[str]
    input: P


def batches(
    items: Iterable[tuple[str, str, S, T]], size_of: Callable[[S], int], prepare: Callable[[Sequence[T]], P]
) -> Iterator[Batch[P]]:
    """Full batches of (name, key, shape, value), each of one shape, in the order in which they fill.

    size_of: how many of a shape are a full batch.
    """
    waiting: dict[S, list[tuple[str, str, T]]] = {}

    def full(shape: S, some: list[tuple[str, str, T]]) -> Batch[P]:
        values = [value for _, _, value in some]
        filled = values + values[-1:] * (size_of(shape) - len(values))
        return Batch([name for name, _, _ in some], [key for _, key, _ in some], prepare(filled))

    for name, key, shape, value in items:
        waiting.setdefault(shape, []).append((name, key, value))
        if len(waiting[shape]) == size_of(shape):
            yield full(shape, waiting.pop(shape))
    for shape, some in waiting.items():
        yield full(shape, some)


def to_bytes(rows: Sequence[str], tensors: Mapping[str, torch.Tensor]) -> dict[str, bytes]:
    """A value for each row: its part of every tensor, as safetensors. What lies beyond the rows filled the batch up."""
    return {
        row: save({name: tensor[place].contiguous() for name, tensor in tensors.items()})
        for place, row in enumerate(rows)
    }


def from_bytes(known: Mapping[str, bytes], rows: Sequence[str]) -> dict[str, torch.Tensor]:
    """The rows' tensors, stacked by name."""
    parts = [load(known[row]) for row in rows]
    return {name: torch.stack([part[name] for part in parts]) for name in parts[0]}


def this_machine() -> str:
    """What the last bits of a forward pass depend on here: device, processor, threads."""
    device = best_device()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    return f"{device.type} {name} {platform.machine()} {torch.get_num_threads()} threads"


def made_of(
    params: EncodeParams, parts: Iterable[Path], *further: str, modules: Sequence[str] = ("models", "pixels")
) -> str:
    """What values depend on, as a hash: params, parts of the model, libraries and this code.

    further: the machine, and what else they depend on. modules: of core, on whose code they depend.
    """
    about = [
        params.model_dump_json(include={"batch_size", "memory", "dtype", "tiling"}),
        *further,
        *(folder_digest(part) for part in parts),
        *(f"{library} {version(library)}" for library in LIBRARIES),
        folder_digest(Path(__file__).parent, "*.py"),
        folder_digest(Path(__file__).parents[1] / "core" / "families", "*.py"),
        *(file_digest(Path(__file__).parents[1] / "core" / f"{module}.py") for module in modules),
    ]
    return sha256("\n".join(about).encode()).hexdigest()[:32]


def open_reuse(kind: str, made_of: str) -> Reuse:
    """What was computed of a kind of item under the same conditions."""
    return Reuse(scratch("encode") / f"{kind}-{made_of}.sqlite")
