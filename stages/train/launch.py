"""On how many processes: what a file in compute/ says, started by accelerate's own launcher."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import DistributedType

from stages.core.errors import StageError
from stages.train.params import TrainParams


def read_compute(compute: Path) -> dict[str, Any]:
    """A configuration file of accelerate. Raises StageError if it isn't there or is none."""
    try:
        config = yaml.safe_load(compute.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise StageError("train.compute", f"{compute} can't be read ({error})", "name a file in compute/") from None
    if not isinstance(config, dict) or not isinstance(config.get("num_processes"), int):
        raise StageError("train.compute", f"{compute} says no num_processes", "write it by `accelerate config`")
    return config


def launch(compute: Path) -> bool:
    """Run this program again in each process that the file asks for, and wait; whether that was to be done.

    It isn't for one process, nor in a process that was started so. Exits with 1 if one of them fails: after its own
    line if it said why, else (a killed process says nothing) after one that says so.
    """
    processes = read_compute(compute)["num_processes"]
    if processes == 1 or "RANK" in os.environ:
        return False
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(compute)]
    if "ACCELERATE_MACHINE_RANK" in os.environ:
        command += ["--machine_rank", os.environ["ACCELERATE_MACHINE_RANK"]]
    quiet = None if sys.stderr.isatty() else subprocess.PIPE  # a terminal shows the bar, and the launcher's own words
    command += ["-m", "stages.train.run", *sys.argv[1:]]
    with subprocess.Popen(command, stderr=quiet, text=True) as process:  # noqa: S603 - this program with its own words
        try:
            said = (process.communicate()[1] or "").splitlines()
        finally:
            process.terminate()  # passes SIGTERM on: each ends its step and saves; nothing where it has ended
    if process.returncode:
        lines = dict.fromkeys(line for line in said if line.startswith("error: "))
        if lines:
            print("\n".join(lines), file=sys.stderr)
            sys.exit(1)
        killed = any(line.strip().startswith("traceback : Signal 9") for line in said)
        why = "was killed (SIGKILL: by the system, if memory ran out)" if killed else "ended and gave no reason"
        raise StageError("train", f"one of {processes} processes {why}", "run it again: it goes on from its last state")
    return True


def open_accelerator(params: TrainParams, compute: Path) -> Accelerator:
    """This process's device and its place among the others.

    Raises StageError if a batch can't be shared evenly, or weights would be split over processes.
    """
    config = read_compute(compute)
    several_cpus = config["num_processes"] > 1 and not torch.cuda.is_available()
    loose = params.text_encoder.learns  # a text encoder's last layer isn't read by every family
    accelerator = Accelerator(
        mixed_precision=params.precision,
        cpu=bool(config.get("use_cpu")) or several_cpus,
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=loose, broadcast_buffers=False)],
    )
    shared = (DistributedType.NO, DistributedType.MULTI_GPU, DistributedType.MULTI_CPU)
    if accelerator.distributed_type not in shared:
        kind = accelerator.distributed_type.value
        raise StageError("train.compute", f"{compute} asks for {kind}", "use data parallel processes (MULTI_GPU)")
    if params.batch_size % accelerator.num_processes:
        raise StageError(
            "train.batch_size",
            f"is {params.batch_size}, which {accelerator.num_processes} processes can't share evenly",
            f"make it a multiple of {accelerator.num_processes}",
        )
    return accelerator
