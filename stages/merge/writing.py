"""Write a merged file: several threads, each with one tensor at a time and some rows of it in memory."""

import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from stages.core.engine import progress, worker_count
from stages.core.errors import StageError
from stages.core.original_names import link_names
from stages.merge.diagnostics import Meter
from stages.merge.graph import Node, Task, value
from stages.merge.headers import DTYPES, Files, Place, header_bytes, read_header
from stages.merge.models import Model, known_family

BY_NAME = {"float32": DTYPES["F32"], "float16": DTYPES["F16"], "bfloat16": DTYPES["BF16"]}


@dataclass(frozen=True)
class Target:
    """A tensor of the file to write. names: what it is merged from; three where they are stacked. copied: as it is."""

    key: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    transposed: bool = False
    copied: Place | None = None


def folder_targets(part: str, first: Model, skeleton: Model, dtype: str) -> list[Target]:
    """One part's file. skeleton: the folder whose names its tensors get."""
    return [
        _target(skeleton.own[name], name, place, dtype)
        for name, place in first.tensors.items()
        if name.startswith(f"{part}.")
    ]


def single_targets(model: Model, dtype: str) -> list[Target]:
    """A single file of the model's tensors; those that no folder has as they are."""
    found = []
    for link in model.links or link_names(known_family(model), model.tensors)[0]:
        places = [model.tensors[name] for name in link.names]
        shape = places[0].shape
        if link.form == "stacked":
            shape = (sum(place.shape[0] for place in places), *shape[1:])
        elif link.form == "transposed":
            shape = shape[::-1]
        elif link.form == "pointwise":
            shape = (*shape, 1, 1)
        target = _target(link.key, link.names[0], places[0], dtype)
        shapes = tuple(place.shape for place in places)
        found.append(
            Target(link.key, target.dtype, shape, link.names, shapes, link.form == "transposed", target.copied)
        )
    for key, place in model.rest.items():
        found.append(Target(key, place.dtype, place.shape, (), (), copied=place))
    return found


def _target(key: str, name: str, place: Place, dtype: str) -> Target:
    """Whole numbers are copied: they count positions."""
    kind = BY_NAME[dtype] if dtype and place.floating else place.dtype
    return Target(key, kind, place.shape, (name,), (place.shape,), copied=None if place.floating else place)


def write_tensors(
    path: Path,
    targets: Iterable[Target],
    metadata: Mapping[str, str],
    files: Files,
    node: Node,
    meter: Meter | None = None,
) -> None:
    """Write a whole file. Raises StageError, which names the tensor, if a value isn't finite in the file's type."""
    ordered = list(targets)
    begin, starts = header_bytes({target.key: (target.dtype, target.shape) for target in ordered}, metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(begin)
        file.flush()

        def write(target: Target) -> None:
            _write_target(file.fileno(), starts[target.key], target, files, node, meter)

        with progress() as bar, ThreadPoolExecutor(worker_count()) as pool:
            advance = bar.add_task(path.parent.name, total=len(ordered))
            try:
                for _ in pool.map(write, sorted(ordered, key=lambda target: starts[target.key])):
                    bar.advance(advance)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


def rewrite_metadata(path: Path, metadata: Mapping[str, str]) -> None:
    """Exchange some of a file's metadata for others that take no more room; else ValueError."""
    header = read_header(path)
    tensors = {key: (place.dtype, place.shape) for key, place in header.tensors.items()}
    begin, _ = header_bytes(tensors, {**header.metadata, **metadata})
    with path.open("r+b") as file:
        room = int.from_bytes(file.read(8), "little")
        if len(begin) - 8 > room:
            raise ValueError("the metadata are longer than those before")
        file.write(begin[8:].ljust(room))


def _write_target(descriptor: int, at: int, target: Target, files: Files, node: Node, meter: Meter | None) -> None:
    """The rows of each of its tensors, one behind the other."""
    if target.copied:
        for start, stop in Task(target.key, target.copied.shape).chunks:
            at += put(descriptor, at, files.rows(target.copied, start, stop))
        return
    for name, shape in zip(target.names, target.shapes, strict=True):
        for rows in merged_rows(files, node, Task(name, shape), target.dtype, meter, whole=target.transposed):
            at += put(descriptor, at, rows.T.contiguous() if target.transposed else rows)


def merged_rows(
    files: Files, node: Node, task: Task, dtype: torch.dtype, meter: Meter | None = None, whole: bool = False
) -> Iterable[torch.Tensor]:
    """A tensor's rows as they are written, chunk by chunk or all at once: rounded once, at the end."""
    largest = torch.finfo(dtype).max
    for start, stop in [(0, task.shape[0])] if whole else task.chunks:
        merged = value(files, node, task, start, stop)
        if merged.numel():
            low, high = torch.aminmax(merged)
            if not (-largest <= low and high <= largest):
                raise StageError(
                    task.name, f"has values beyond {dtype} after the merge", "lower the ratio or set dtype"
                )
        kept = merged.to(dtype)
        if meter:
            meter.look(files, task, start, stop, merged, kept)
        yield kept


def put(descriptor: int, at: int, rows: torch.Tensor) -> int:
    """Write numbers at a byte of a file; how many bytes they are."""
    data = rows.reshape(-1).view(torch.uint8).numpy().data
    done = 0
    while done < len(data):  # the system may take less than it is given
        done += os.pwrite(descriptor, data[done:], at + done)
    return len(data)
