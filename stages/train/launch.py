"""On how many processes: what a file in compute/ says, started by accelerate's own launcher."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import Accelerator, DistributedDataParallelKwargs, FullyShardedDataParallelPlugin, PartialState
from accelerate.utils import DistributedType
from torch.distributed.fsdp import MixedPrecisionPolicy

from stages.core.errors import StageError
from stages.train.params import TrainParams

KINDS = ("NO", "MULTI_GPU", "MULTI_CPU", "FSDP")
SPLIT_METHODS = ("full", "dreambooth", "lora", "controlnet")  # the others learn what is small
SPLIT_OPTIMIZERS = ("adafactor", "adamw", "lion", "muon")  # adamw_8bit and prodigy take no split weights
PLACE = ("machine_rank", "main_process_ip", "main_process_port")  # of accelerate's options: where, not how


def read_compute(compute: Path) -> dict[str, Any]:
    """A configuration file of accelerate. Raises StageError if it isn't there or is none."""
    try:
        config = yaml.safe_load(compute.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise StageError("train.compute", f"{compute} can't be read ({error})", "name a file in compute/") from None
    if not isinstance(config, dict) or not isinstance(config.get("num_processes"), int):
        raise StageError("train.compute", f"{compute} says no num_processes", "write it by `accelerate config`")
    if config.get("distributed_type") not in KINDS:
        what = f"{compute} asks for {config.get('distributed_type')}"
        raise StageError("train.compute", what, "take MULTI_GPU, or FSDP to split the weights, as compute/zero2.yaml")
    return config


def gpus_wanted(compute: Path) -> int:
    """How many of this machine's GPUs the file asks for: one a process; 0 where it asks for the CPU."""
    config = read_compute(compute)
    return 0 if config.get("use_cpu") else config["num_processes"] // config.get("num_machines", 1)


def launch(compute: Path) -> bool:
    """Run this program again in each process that the file asks for, and wait; whether that was to be done.

    It isn't for one process, nor in a process that was started so. Which of several machines this is, and where the
    first one is found, may stand in ACCELERATE_MACHINE_RANK, ACCELERATE_MAIN_PROCESS_IP and _PORT. Exits with 1 if a
    process fails: after its own line if it said why, else (a killed process says nothing) after one that says so.
    """
    processes = read_compute(compute)["num_processes"]
    if processes == 1 or "RANK" in os.environ:
        return False
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(compute)]
    for option in PLACE:
        if said_so := os.environ.get(f"ACCELERATE_{option.upper()}"):
            command += [f"--{option}", said_so]
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
        # SIGTERM of another machine's; where one was killed the launcher sends it to the rest.
        if not killed and any(line.strip().startswith("exitcode  : 143") for line in said):
            raise StageError("train", "was told to stop", "run it again: it goes on from its last state")
        if not killed:
            print("\n".join(said), file=sys.stderr)
        why = "was killed (SIGKILL: by the system, if memory ran out)" if killed else "ended and gave no reason"
        raise StageError("train", f"one of {processes} processes {why}", "run it again: it goes on from its last state")
    return True


def open_accelerator(params: TrainParams, compute: Path) -> Accelerator:
    """This process's device and its place among the others.

    Raises StageError if a batch can't be shared evenly, or weights can't be split over processes.
    """
    config = read_compute(compute)
    several = config["num_processes"] > 1
    split = split_weights(params, config) if several and config["distributed_type"] == "FSDP" else None
    loose = params.text_encoder.learns  # a text encoder's last layer isn't read by every family
    accelerator = Accelerator(
        mixed_precision=params.precision,
        cpu=bool(config.get("use_cpu")) or (several and not torch.cuda.is_available()),
        fsdp_plugin=split,
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=loose, broadcast_buffers=False)],
    )
    if split and accelerator.distributed_type == DistributedType.MULTI_CPU:
        # torch splits weights over gloo too. accelerate has it do so on GPUs only, and says nothing on CPUs.
        accelerator.state.fsdp_plugin = split
        for held in (accelerator.state, PartialState()):
            held.distributed_type = DistributedType.FSDP
    if params.batch_size % accelerator.num_processes:
        raise StageError(
            "train.batch_size",
            f"is {params.batch_size}, which {accelerator.num_processes} processes can't share evenly",
            f"make it a multiple of {accelerator.num_processes}",
        )
    return accelerator


def layout_of(accelerator: Accelerator) -> str:
    """How many processes there are and what each holds: on this depends in which order sums are added."""
    several = f"{accelerator.num_processes} processes{' with split weights' if accelerator.is_fsdp2 else ''}"
    return several if accelerator.num_processes > 1 else "1 process"


def split_weights(params: TrainParams, config: dict[str, Any]) -> FullyShardedDataParallelPlugin:
    """How weights are split: as the file says, which accelerate's launcher has put into the environment.

    In bf16 they are gathered in that type, and gradients summed in float32. Raises StageError for what can't be split.
    """
    said = config.get("fsdp_config") or {}
    for option in ("fsdp_offload_params", "fsdp_activation_checkpointing", "fsdp_cpu_ram_efficient_loading"):
        if said.get(option):
            advice = "leave it out; train.gradient_checkpointing saves memory"
            raise StageError("train.compute", f"{option} isn't supported", advice)
    if said.get("fsdp_version") != 2:
        raise StageError("train.compute", "FSDP has to be of version 2", "set fsdp_version: 2")
    for knob, value, known in (
        ("method", params.method, SPLIT_METHODS),
        ("optimizer", params.optimizer, SPLIT_OPTIMIZERS),
        ("precision", params.precision, ("no", "bf16")),
    ):
        if value not in known:
            advice = f"take {', '.join(known)}, or a file with MULTI_GPU"
            raise StageError(f"train.{knob}", f"{value} can't have split weights", advice)
    half = torch.bfloat16 if params.precision == "bf16" else None
    policy = MixedPrecisionPolicy(param_dtype=half, reduce_dtype=torch.float32, cast_forward_inputs=False)
    return FullyShardedDataParallelPlugin(fsdp_version=2, mixed_precision_policy=policy)
