"""Work in batches of one shape, remembered by content: what an item becomes depends on nothing beside it.

A forward pass gives other last bits at another batch size, since the libraries choose other kernels; at one size a
row's place and neighbours change nothing (tests/encode holds that on this CPU; on a GPU a fixed shape keeps the
kernels the same too, untested). So every batch is full, the last one filled up by repeating its last item, and what
was computed in an earlier run is what a run from nothing would compute.
"""

import platform
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Generic, TypeVar

import torch

from stages.core.files import file_digest, folder_digest, scratch
from stages.core.models import best_device
from stages.core.reuse import Reuse
from stages.encode.params import EncodeParams

LIBRARIES = ("diffusers", "numpy", "pillow", "torch", "transformers")

T = TypeVar("T")
P = TypeVar("P")


@dataclass(frozen=True)
class Batch(Generic[P]):
    """Names of what is to be computed, the keys it is known by in messages, and the filled-up input."""

    names: list[str]
    keys: list[str]
    input: P


def batches(
    items: Iterable[tuple[str, str, Hashable, T]], size: int, prepare: Callable[[Sequence[T]], P]
) -> Iterator[Batch[P]]:
    """Full batches of (name, key, shape, value), each of one shape, in the order in which they fill."""
    waiting: dict[Hashable, list[tuple[str, str, T]]] = {}

    def full(some: list[tuple[str, str, T]]) -> Batch[P]:
        values = [value for _, _, value in some]
        filled = values + values[-1:] * (size - len(values))
        return Batch([name for name, _, _ in some], [key for _, key, _ in some], prepare(filled))

    for name, key, shape, value in items:
        waiting.setdefault(shape, []).append((name, key, value))
        if len(waiting[shape]) == size:
            yield full(waiting.pop(shape))
    for some in waiting.values():
        yield full(some)


def ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items, each made by a thread while the one before is in use."""
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = reader.submit(next, items, None)
            yield item


def open_reuse(kind: str, params: EncodeParams, parts: Iterable[Path], *further: str) -> Reuse:
    """What was computed under the same conditions: params, parts of the model, libraries, machine and this code.

    further: what else the values depend on.
    """
    device = best_device()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    about = [
        params.model_dump_json(include={"batch_size", "dtype", "tiling"}),
        *further,
        *(folder_digest(part) for part in parts),
        *(f"{library} {version(library)}" for library in LIBRARIES),
        f"{device.type} {name} {platform.machine()} {torch.get_num_threads()} threads",
        folder_digest(Path(__file__).parent, "*.py"),
        folder_digest(Path(__file__).parents[1] / "core" / "families", "*.py"),
        *(file_digest(Path(__file__).parents[1] / "core" / f"{module}.py") for module in ("models", "pixels")),
    ]
    made_of = sha256("\n".join(about).encode()).hexdigest()[:32]
    return Reuse(scratch("encode") / f"{kind}-{made_of}.sqlite")
