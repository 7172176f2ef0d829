"""Where shards are worked on: the environment decides, the bytes don't know.

The unit of data work is a shard: a pure function from one shard to one shard.
`DARKROOM_WORKERS` sets the number of processes (default: one a core), `DARKROOM_MEMORY` how many GiB one of them may
need: no more work at once than there is memory for. `DARKROOM_ENGINE` says where they are: `local` (the default), `ray`
(the Ray cluster that this machine is part of), `ray://HOST:PORT` (one elsewhere).
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import joblib
import psutil
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from stages.core.cluster import ENGINE, Cluster, map_on_ray
from stages.core.errors import StageError
from stages.core.exchange import Files

T = TypeVar("T")
R = TypeVar("R")


def worker_count() -> int:
    """Processes to use: DARKROOM_WORKERS, or as many as there are cores to run on."""
    wanted = os.environ.get("DARKROOM_WORKERS", "")
    if not wanted:
        return int(joblib.cpu_count())
    if not wanted.isdecimal() or int(wanted) < 1:
        raise StageError("DARKROOM_WORKERS", f"is {wanted!r}", "set it to a whole number from 1")
    return int(wanted)


def task_memory() -> int | None:
    """Bytes that a task may need: DARKROOM_MEMORY, in GiB; None if nobody says."""
    told = os.environ.get("DARKROOM_MEMORY", "")
    try:
        memory = int(float(told or 1) * 2**30)
    except (ValueError, OverflowError):
        memory = 0
    if memory < 2**20:
        raise StageError("DARKROOM_MEMORY", f"is {told!r}", "set it to the GiB that a task may need")
    return memory if told else None


def map_shards(
    function: Callable[[T], R],
    tasks: Iterable[T],
    label: str,
    total: int | None = None,
    *,
    files: Files[T] | None = None,
    gpu: bool = False,
) -> Iterator[R]:
    """`function` of each task, in the order of the tasks, worked on by several processes.

    total: how many tasks there are, where they are not a sequence; they are then made as they are handed out.
    files: what tasks read and write, for machines that share no file system; None: nothing.
    gpu: each wants a GPU to itself, where the cluster has some; not for this machine (`stages.encode.processes`).
    An exception in a worker is raised here, as it is.
    """
    count = total if total is not None else len(tasks) if isinstance(tasks, Sequence) else None
    with progress() as bar:
        advance = bar.add_task(label, total=count)
        for result in _results(function, tasks, count, files, gpu):
            bar.advance(advance)
            yield result


def on_cluster() -> bool:
    """Whether shards go to a cluster. Raises StageError if DARKROOM_ENGINE is no engine."""
    engine = os.environ.get(ENGINE) or "local"
    if engine not in ("local", "ray") and not engine.startswith("ray://"):
        raise StageError(ENGINE, f"is {engine!r}", "set it to local, ray or ray://HOST:PORT")
    return engine != "local"


def _results(
    function: Callable[[T], R], tasks: Iterable[T], count: int | None, files: Files[T] | None, gpu: bool
) -> Iterator[R]:
    memory = task_memory()
    if on_cluster():
        told = worker_count() if "DARKROOM_WORKERS" in os.environ else None
        address = "auto" if os.environ[ENGINE] == "ray" else os.environ[ENGINE]
        return map_on_ray(function, tasks, Cluster(address, told, memory, gpu), files)
    workers = worker_count() if count is None else min(worker_count(), count)
    if memory:
        workers = min(workers, max(1, psutil.virtual_memory().total // memory))
    if workers < 2:
        return map(function, tasks)
    parallel = joblib.Parallel(n_jobs=workers, return_as="generator")
    return iter(parallel(joblib.delayed(function)(task) for task in tasks))


class Rate(ProgressColumn):
    """How many a second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.1f}/s" if task.speed else "")


def ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items, each made by a thread while the one before is in use."""
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = reader.submit(next, items, None)
            yield item


def progress(*columns: ProgressColumn) -> Progress:
    """A bar with count, rate and time left, then the columns; on a terminal only."""
    return Progress(
        TextColumn("{task.description:10}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
        *columns,
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
        transient=True,
    )
