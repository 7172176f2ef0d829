"""Where shards are worked on: the environment decides, the bytes don't know.

The unit of data work is a shard: a pure function from one shard to one shard.
`DARKROOM_WORKERS` sets the number of processes (default: one a core). `DARKROOM_ENGINE` says where they are: `local`
(the default), `ray` (the Ray cluster that this machine is part of), `ray://HOST:PORT` (one elsewhere).
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import joblib
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from stages.core.cluster import ENGINE, cluster_size, map_on_ray
from stages.core.errors import StageError

T = TypeVar("T")
R = TypeVar("R")
SCREEN = Console(stderr=True)  # one for all: bars within bars stand below each other


def worker_count() -> int:
    """Processes to use: DARKROOM_WORKERS, or as many as there are cores to run on."""
    wanted = os.environ.get("DARKROOM_WORKERS", "")
    if not wanted:
        return int(joblib.cpu_count())
    if not wanted.isdecimal() or int(wanted) < 1:
        raise StageError("DARKROOM_WORKERS", f"is {wanted!r}", "set it to a whole number from 1")
    return int(wanted)


def cluster_workers() -> int:
    """Tasks that a cluster works on at once; 1 if there is none."""
    address = _cluster()
    if address is None:
        return 1
    return worker_count() if "DARKROOM_WORKERS" in os.environ else cluster_size(address)


def map_shards(function: Callable[[T], R], tasks: Sequence[T], label: str) -> Iterator[R]:
    """`function` of each task, in the order of the tasks, worked on by several processes.

    An exception in a worker is raised here, as it is.
    """
    with progress() as bar:
        advance = bar.add_task(label, total=len(tasks))
        for result in _results(function, tasks):
            bar.advance(advance)
            yield result


def _results(function: Callable[[T], R], tasks: Sequence[T]) -> Iterator[R]:
    if (address := _cluster()) is not None:
        told = worker_count() if "DARKROOM_WORKERS" in os.environ else None
        return map_on_ray(function, tasks, address, told)
    workers = min(worker_count(), len(tasks))
    if workers < 2:
        return map(function, tasks)
    parallel = joblib.Parallel(n_jobs=workers, return_as="generator")
    return iter(parallel(joblib.delayed(function)(task) for task in tasks))


def _cluster() -> str | None:
    """Address of the cluster that DARKROOM_ENGINE names, auto for that of this machine; None for no cluster."""
    engine = os.environ.get(ENGINE) or "local"
    if engine == "local":
        return None
    if engine != "ray" and not engine.startswith("ray://"):
        raise StageError(ENGINE, f"is {engine!r}", "set it to local, ray or ray://HOST:PORT")
    return "auto" if engine == "ray" else engine


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
        console=SCREEN,
        disable=not sys.stderr.isatty(),
        transient=True,
    )
