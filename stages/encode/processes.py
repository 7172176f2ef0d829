"""One process a GPU: accelerate's launcher starts them, each encodes its share, and they meet in what is known.

What an item becomes depends on nothing beside it (`stages.encode.batches`), so who computes it can't matter; the
processes never speak to each other. `DARKROOM_ENCODERS` sets their number (default: one a GPU, where all are alike).

    python -m stages.encode.processes   is what one of them runs; `encode_together` starts them
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import psutil
import torch
from pydantic import TypeAdapter

from stages.core.engine import on_cluster
from stages.core.errors import StageError
from stages.core.files import scratch, write_json
from stages.core.gpus import ALL
from stages.core.reuse import Known
from stages.core.stage import run_stage
from stages.encode.boomerang import Boomerang, Origin
from stages.encode.captions import Embeddings
from stages.encode.params import EncodeParams
from stages.encode.posteriors import Posteriors, RoundTrips
from stages.encode.processed import Picture

ITEMS: dict[str, TypeAdapter[Any]] = {
    "pictures": TypeAdapter(list[Picture]),
    "captions": TypeAdapter(list[str]),
    "variants": TypeAdapter(list[Origin]),
}
MODULE = "stages.encode.processes"
GRACE = 10  # seconds between SIGTERM and the end
DONE = "encoded "  # begins a line that says how many more are known


class Maker(Protocol):
    """What computes and remembers one kind of item."""

    params: EncodeParams
    made_of: str
    reuse: Known

    def missing(self, items: Sequence[Any]) -> list[Any]:
        """Those that aren't known, each once."""

    def encode(self, items: Sequence[Any]) -> Iterator[int]:
        """Compute these; after each batch, how many it held."""


def open_maker(kind: str, params: EncodeParams, base: Path) -> Maker:
    """The maker of a kind of item."""
    if kind == "pictures":
        return Posteriors(params, base)
    if kind == "round_trips":
        return RoundTrips(Posteriors(params, base))
    if kind == "captions":
        return Embeddings(params, base)
    return Boomerang(params, base, Posteriors(params, base), Embeddings(params, base))


def encoder_count() -> int:
    """Processes to use: DARKROOM_ENCODERS, or one a GPU; where GPUs differ their bits may, so then one."""
    gpus, wanted = torch.cuda.device_count(), os.environ.get("DARKROOM_ENCODERS", "")
    if not wanted:
        return gpus if len({torch.cuda.get_device_name(gpu) for gpu in range(gpus)}) == 1 else 1
    if not wanted.isdecimal() or int(wanted) < 1 or (gpus and int(wanted) > gpus):
        most = f" to {gpus}, as there are GPUs" if gpus else ""
        raise StageError("DARKROOM_ENCODERS", f"is {wanted!r}", f"set it to a whole number from 1{most}")
    return int(wanted)


def gpus_wanted() -> tuple[int, int]:
    """The least and the most GPUs to lease: as many as DARKROOM_ENCODERS says, or all that no other run holds.

    None, where a cluster computes.
    """
    if on_cluster():
        return 0, 0
    wanted = os.environ.get("DARKROOM_ENCODERS", "")
    return (int(wanted), int(wanted)) if wanted.isdecimal() and int(wanted) else (1, ALL)


def encode(kind: str, maker: Maker, base: Path, items: Sequence[Any], count: int) -> Generator[int, None, None]:
    """Compute what is missing of the items, by `count` processes where it is worth their start."""
    missing = maker.missing(items)
    if count > 1 and len(missing) >= count * maker.params.batch_size:
        yield from encode_together(kind, maker.params, base, missing, count)
        missing = maker.missing(missing)  # nothing, or what a process computed under other conditions than these
    yield from maker.encode(missing)


def encode_together(kind: str, params: EncodeParams, base: Path, items: Sequence[Any], count: int) -> Iterator[int]:
    """Start the processes and follow them; when this ends, however it does, so do they.

    Raises StageError: a process's own, or one that names its exit code after its last words.
    """
    with tempfile.TemporaryDirectory(dir=scratch("encode")) as name:
        work = Path(name)
        (work / "params.json").write_text(params.model_dump_json(), encoding="utf-8")
        for rank in range(count):
            share = items[len(items) * rank // count : len(items) * (rank + 1) // count]
            (work / f"{rank}.json").write_bytes(ITEMS[kind].dump_json(list(share)))
        with _launch(kind, work, base, count) as launcher:
            try:
                for line in launcher.stdout or ():
                    if line.startswith(DONE):
                        yield int(line.removeprefix(DONE))
                launcher.wait()
            finally:
                launcher.terminate()
        for error in sorted(work.glob("error-*.json")):
            raise StageError(*json.loads(error.read_text(encoding="utf-8")))
        if launcher.returncode:
            sys.stderr.write((work / "said").read_text(encoding="utf-8"))
            raise StageError(
                "encode", f"a process ended with exit code {launcher.returncode}", "see what it said above"
            )


def _launch(kind: str, work: Path, base: Path, count: int) -> subprocess.Popen[str]:
    """accelerate's launcher with a config of its own: a person's default one is for training."""
    config = {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": "MULTI_GPU",  # the launcher's word for several processes on this machine
        "mixed_precision": "no",
        "num_processes": count,
        "main_process_port": 0,  # any that is free
    }
    write_json(work / "accelerate.json", config)
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(work / "accelerate.json")]
    command += ["--module", MODULE, "--kind", kind, "--work", str(work), "--base", str(base)]
    command += ["--parent", str(os.getpid()), "--threads", str(torch.get_num_threads())]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    with (work / "said").open("w") as said:
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True, env=environment)  # noqa: S603 - our own words


def main(kind: str, work: Path, base: Path, parent: int, threads: int) -> None:
    """One of the processes: its share, by its own GPU."""
    _end_with(parent)
    torch.set_num_threads(threads)  # part of what values depend on
    rank = int(os.environ["LOCAL_RANK"])
    if torch.cuda.is_available():
        torch.cuda.set_device(rank)
    try:
        params = EncodeParams.model_validate_json((work / "params.json").read_bytes())
        items = ITEMS[kind].validate_json((work / f"{rank}.json").read_bytes())
        for done in open_maker(kind, params, base).encode(items):
            print(f"{DONE}{done}", flush=True)
    except StageError as error:
        write_json(work / f"error-{rank}.json", [error.where, error.what, error.do])
        raise


def _end_with(parent: int) -> None:
    """End with SIGTERM when the stage is gone without a word: its launcher would not notice."""

    def watch() -> None:
        try:
            stage = psutil.Process(parent)
            while stage.is_running() and stage.status() != psutil.STATUS_ZOMBIE:
                time.sleep(1)
        except psutil.NoSuchProcess:
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE)  # a thread that waits for a disk keeps the process alive
        os._exit(1)

    threading.Thread(target=watch, name="follow-stage", daemon=True).start()


if __name__ == "__main__":
    run_stage(main)
