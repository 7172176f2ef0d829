"""A LoRA that a recipe makes: written as a file of its own, then put into the weights from there."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import torch

from stages.core.engine import worker_count
from stages.core.errors import StageError
from stages.core.lora_names import Adapter, to_peft
from stages.merge.graph import Adapted, Task, factors_of, is_extracted, value
from stages.merge.headers import Files, header_bytes
from stages.merge.loras import Loras, open_lora
from stages.merge.models import Model, known_family
from stages.merge.writing import put

Shape = tuple[int, ...]


def write_adapter(path: Path, node: Adapted, first: Model, files: Files, metadata: dict[str, str]) -> Adapted:
    """Write the node's LoRA as diffusers does, float32; the node that adds this file to the same model.

    Raises StageError if there is nothing to write.
    """
    shapes = {name: place.shape for name, place in first.tensors.items()}
    ranks = {name: rank for name in sorted(shapes) if (rank := _rank(node, Task(name, shapes[name]), files))}
    if not ranks:
        raise StageError("merge", "the LoRA would be empty: the models have equal weights", "take another b")
    empty = {name.removesuffix(".weight"): _empty(shapes[name], rank) for name, rank in ranks.items()}
    tensors, about = to_peft(empty)
    begin, starts = header_bytes(
        {key: (each.dtype, tuple(each.shape)) for key, each in tensors.items()}, {**metadata, **about}
    )
    with path.open("wb") as file, ThreadPoolExecutor(worker_count()) as pool:
        file.write(begin)
        file.flush()

        def write(name: str) -> None:
            factors = factors_of(files, node, Task(name, shapes[name]))
            if factors is not None:
                module = name.removesuffix(".weight")
                put(file.fileno(), starts[f"{module}.lora_A.weight"], factors.down)
                put(file.fileno(), starts[f"{module}.lora_B.weight"], factors.up)

        list(pool.map(write, ranks))
    return with_file(path, node, first, files)


def with_file(path: Path, node: Adapted, first: Model, files: Files) -> Adapted:
    """The node with the file in place of what it was made from."""
    shapes = {name: place.shape for name, place in first.tensors.items()}
    made = open_lora(path.name, path, 1.0, known_family(first), shapes)
    files.open([path])
    return replace(node, ratios=dict.fromkeys(node.ratios, 1.0), b=None, loras=Loras((made,)))


def _rank(node: Adapted, task: Task, files: Files) -> int:
    """Of the update of one weight; 0 for none."""
    if node.b is None:
        whole = sum(lora.places[task.name]["down"].shape[0] for lora in node.loras.files if task.name in lora.places)
        wanted = node.recipe.rank
        return whole if not 0 < wanted < whole else min(wanted, *_sides(task.shape))
    if not is_extracted(task) or not _differs(node, task, files):
        return 0
    return min(node.recipe.rank or min(_sides(task.shape)), *_sides(task.shape))


def _differs(node: Adapted, task: Task, files: Files) -> bool:
    b = node.b
    return b is not None and any(
        not torch.equal(value(files, node.a, task, *chunk), value(files, b, task, *chunk)) for chunk in task.chunks
    )


def _sides(shape: Shape) -> tuple[int, int]:
    return shape[0], torch.Size(shape[1:]).numel()


def _empty(shape: Shape, rank: int) -> Adapter:
    """An adapter's shapes without its numbers."""
    ones = (1,) * len(shape[2:])
    return Adapter(
        torch.empty(rank, *shape[1:], device="meta"), torch.empty(shape[0], rank, *ones, device="meta"), float(rank)
    )
