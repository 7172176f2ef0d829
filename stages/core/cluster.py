"""Shards as tasks of a Ray cluster, on a file system that all of its machines share: paths travel, pictures don't.

A task whose machine is lost is run again elsewhere. It may do so because a shard is written to a temporary name and
then renamed, and is the same whoever writes it.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from stages.core.errors import StageError

T = TypeVar("T")
R = TypeVar("R")

ENGINE = "DARKROOM_ENGINE"
RETRIES = 5  # of a task whose machine or process is lost
AHEAD = 2  # tasks handed out for each worker: what is finished and not taken yet stays bounded
CARRIED = ("DVC_ROOT", "HF_HUB_OFFLINE")  # of the environment, beside all that begins with DARKROOM_


def map_on_ray(
    function: Callable[[T], R], tasks: Iterable[T], address: str, workers: int | None, gpu: bool
) -> Iterator[R]:
    """`function` of each task, in order. address: of a running cluster; auto: the one on this machine.

    workers: tasks at once; None: one a processor of the cluster. gpu: a task has a GPU, if the cluster has any, and
    there are as many at once. An exception in a task is raised here, as it is; StageError if Ray isn't installed, no
    cluster is there, or a task's machines were lost again and again.
    """
    ray = _connected(address)
    given = ray.put(function)  # once, whatever it carries
    has = ray.cluster_resources()
    gpus = int(gpu and has.get("GPU", 0))
    run = ray.remote(num_cpus=1, num_gpus=min(gpus, 1), max_retries=RETRIES, scheduling_strategy="SPREAD")(_work)
    most = AHEAD * (workers or gpus or max(1, int(has.get("CPU", 1))))
    waiting: deque[Any] = deque()
    try:
        for task in tasks:
            if len(waiting) >= most:
                yield _taken(ray, waiting.popleft())
            waiting.append(run.remote(str(Path.cwd()), given, task))
        while waiting:
            yield _taken(ray, waiting.popleft())
    finally:
        for left in waiting:
            ray.cancel(left, force=True)


def _connected(address: str) -> Any:
    """Ray, connected to the cluster; again, if it is already."""
    try:
        import ray
    except ImportError:
        raise StageError(ENGINE, "asks for ray, which isn't installed", "`make extras` installs it") from None
    if not ray.is_initialized():
        environment = {name: value for name, value in os.environ.items() if name.startswith("DARKROOM_")}
        environment |= {name: os.environ[name] for name in CARRIED if name in os.environ}
        environment |= {
            "PYTHONPATH": str(Path(__file__).parents[2]),
            ENGINE: "local",
        }  # a task's own tasks stay with it
        try:
            ray.init(
                address=address,
                runtime_env={"env_vars": environment},
                log_to_driver=False,
                logging_level="ERROR",
                configure_logging=False,
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            said = (str(error).splitlines() or [type(error).__name__])[0]
            raise StageError(
                ENGINE, f"no cluster answers at {address} ({said})", "`ray start --head` begins one"
            ) from None
    return ray


def _work(folder: str, function: Callable[[T], R], task: T) -> R:
    """In the project's folder, as on one machine."""
    os.chdir(folder)
    return function(task)


def _taken(ray: Any, result: Any) -> Any:
    """What a task gave. Raises what it raised."""
    try:
        return ray.get(result)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError as error:
        said = str(error).splitlines()[0]
        raise StageError(
            ENGINE, f"lost a task {RETRIES + 1} times ({said})", "look after the cluster, run again"
        ) from None
