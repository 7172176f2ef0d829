"""Shards as tasks of a Ray cluster: paths travel, pictures don't.

The machines share a file system, or exchange files over an object store (`stages.core.exchange`).
A task whose machine is lost is run again elsewhere. It may do so because a shard is written to a temporary name and
then renamed, and is the same whoever writes it.
"""

import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from stages.core.errors import StageError
from stages.core.exchange import EXCHANGE, Exchange, Files, Parcel, take, work_apart
from stages.core.files import SCRATCH

T = TypeVar("T")
R = TypeVar("R")

ENGINE = "DARKROOM_ENGINE"
RETRIES = 5  # of a task whose machine or process is lost
AHEAD = 2  # tasks handed out for each worker: what is finished and not taken yet stays bounded
CARRIED = ("DVC_ROOT", "HF_HUB_OFFLINE")  # of the environment, beside all that begins as these do
PREFIXES = ("DARKROOM_", "AWS_", "FSSPEC_")


@dataclass(frozen=True)
class Cluster:
    """Which one, and what a task takes of it. address: of a running cluster; auto: the one on this machine.

    workers: tasks at once; None: one a processor of the cluster. memory: bytes that a task reserves; None: nothing.
    gpu: a task has a GPU, if the cluster has any, and there are as many at once.
    """

    address: str
    workers: int | None = None
    memory: int | None = None
    gpu: bool = False


def map_on_ray(
    function: Callable[[T], R], tasks: Iterable[T], cluster: Cluster, files: Files[T] | None = None
) -> Iterator[R]:
    """`function` of each task, in order. files: what tasks read and write, for machines that share no file system.

    An exception in a task is raised here, as it is; StageError if Ray isn't installed, no cluster is there, or a
    task's machines were lost again and again.
    """
    exchange = Exchange(os.environ[EXCHANGE]) if os.environ.get(EXCHANGE) else None
    common = exchange.put(files.common) if exchange and files else {}
    ray = _connected(cluster.address)
    given = ray.put(function)  # once, whatever it carries
    has = ray.cluster_resources()
    gpus = int(cluster.gpu and has.get("GPU", 0))
    wants: dict[str, Any] = {"num_cpus": 1, "num_gpus": min(gpus, 1), "memory": cluster.memory}
    run = ray.remote(**wants, max_retries=RETRIES, scheduling_strategy="SPREAD")(_work)
    most = AHEAD * (cluster.workers or gpus or max(1, int(has.get("CPU", 1))))
    waiting: deque[Any] = deque()

    def taken() -> R:
        result, written = _taken(ray, waiting.popleft())
        if exchange:
            take(exchange, written)
        return cast(R, result)

    try:
        for task in tasks:
            if len(waiting) >= most:
                yield taken()
            parcel = exchange.parcel(files, common, task) if exchange else None
            waiting.append(run.remote(str(Path.cwd()), parcel, given, task))
        while waiting:
            yield taken()
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
        try:
            ray.init(
                address=address,
                runtime_env=_environment(),
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


def _environment() -> dict[str, Any]:
    """What the processes of tasks see: this project's code, and of this process's environment what concerns them."""
    variables = {name: value for name, value in os.environ.items() if name.startswith(PREFIXES) or name in CARRIED}
    variables[ENGINE] = "local"  # a task's own tasks stay with it
    stages = Path(__file__).parents[1]
    if not os.environ.get(EXCHANGE):
        return {"env_vars": variables | {"PYTHONPATH": str(stages.parent)}}
    variables[SCRATCH] = str(Path(tempfile.gettempdir()) / "darkroom")
    return {"env_vars": variables, "py_modules": [str(stages)]}


def _work(folder: str, parcel: Parcel | None, function: Callable[[T], R], task: T) -> tuple[R, dict[str, str]]:
    """In the project's folder, as on one machine; or, with a parcel, in one that has what it names."""
    if parcel:
        return work_apart(parcel, function, task)
    os.chdir(folder)
    return function(task), {}


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
