"""Which GPU is whose: runs of a project that work side by side on one machine don't share one.

A lease is a lock of the operating system on one file a GPU: it ends with its process, however that ends. Where a run
computes is not what it computes: no byte depends on it.
"""

import os
import platform
import re
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pynvml
from filelock import FileLock, Timeout

from stages.core.errors import StageError
from stages.core.files import scratch

VISIBLE = "CUDA_VISIBLE_DEVICES"
GIVEN = "DARKROOM_GPUS"  # of this machine's GPUs those that the project may take
HELD = "DARKROOM_LEASE"  # what a stage holds, for the processes that it starts
ALL = sys.maxsize  # at most: every GPU that is free
POLL = 0.5  # seconds


def one_gpu(**_arguments: Any) -> AbstractContextManager[float]:
    """The lease of a stage that computes on one GPU."""
    return leased(1)


@contextmanager
def leased(least: int, most: int | None = None) -> Iterator[float]:
    """Hold from `least` to `most` GPUs (None: `least`) which no other run holds; CUDA sees no others.

    Waits until there are enough and yields the seconds waited. Enter before anything asks CUDA: it reads
    CUDA_VISIBLE_DEVICES once. Nothing happens where no GPU is wanted or known, nor in the processes of a run that holds
    some or that another launcher started (RANK). One waits at a time: who wants two is not passed by those that want
    one.

    Raises StageError if more are wanted than there are.
    """
    known = known_gpus() if least and not {HELD, "RANK"} & os.environ.keys() else {}
    if not known:
        yield 0.0
        return
    if len(known) < least:
        raise StageError("GPUs", f"{least} are wanted and {len(known)} are here ({', '.join(known)})", "ask for fewer")
    before, start = os.environ.get(VISIBLE), time.monotonic()
    with ExitStack() as held:
        taken = _take(scratch("gpus", platform.node()), known, least, most or least, held)
        os.environ[VISIBLE] = os.environ[HELD] = ",".join(taken)
        try:
            yield time.monotonic() - start
        finally:
            del os.environ[HELD], os.environ[VISIBLE]
            if before is not None:
                os.environ[VISIBLE] = before


def _take(folder: Path, known: dict[str, str], least: int, most: int, held: ExitStack) -> list[str]:
    """Lock the first GPUs that are free, one process at a time: two that want two can't hold one each for ever."""
    taken: dict[str, FileLock] = {}
    with ExitStack() as inside:
        door = FileLock(folder / "door")
        if not _locked(door, inside):
            _say_waiting(least, known)
            inside.enter_context(door.acquire(poll_interval=POLL))
        while True:
            for gpu, identity in known.items():
                lock = FileLock(folder / re.sub(r"[^\w.-]", "_", identity))
                if gpu not in taken and len(taken) < most and _locked(lock, held):
                    taken[gpu] = lock
            if len(taken) >= least:
                return [gpu for gpu in known if gpu in taken]
            _say_waiting(least, known)
            time.sleep(POLL)


def _locked(lock: FileLock, stack: ExitStack) -> bool:
    """Whether the lock was free; then it is held until the stack unwinds."""
    try:
        stack.enter_context(lock.acquire(blocking=False))
    except Timeout:
        return False
    return True


def _say_waiting(least: int, known: dict[str, str]) -> None:
    print(f"waiting for {least} of {len(known)} GPUs: other runs hold them", file=sys.stderr)


def known_gpus() -> dict[str, str]:
    """The GPUs that this run may take: what CUDA_VISIBLE_DEVICES is told of each -> what it is locked by, its UUID.

    Those of CUDA_VISIBLE_DEVICES where somebody set it, else of DARKROOM_GPUS (as the former would have it: numbers
    or UUIDs, also of MIG parts), else every one of NVIDIA's driver. A number counts as the driver does; in a machine
    of several kinds set CUDA_DEVICE_ORDER=PCI_BUS_ID, so that CUDA does too.
    """
    uuids = driver_gpus()
    for variable in (VISIBLE, GIVEN):
        if variable in os.environ:
            words = [word.strip() for word in os.environ[variable].split(",")]
            named = [word for word in words if word and word not in ("-1", "NoDevFiles")]
            numbered = dict(enumerate(uuids))
            return {word: numbered.get(int(word), word) if word.isdecimal() else word for word in named}
    return {uuid: uuid for uuid in uuids}


def driver_gpus() -> list[str]:
    """The UUIDs of this machine's GPUs in the order of NVIDIA's driver, none without it; CUDA stays untouched."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(number) for number in range(pynvml.nvmlDeviceGetCount())]
        return [pynvml.nvmlDeviceGetUUID(handle) for handle in handles]
    finally:
        pynvml.nvmlShutdown()
