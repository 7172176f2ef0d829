"""Start a stage: arguments, params, errors and the end of its parent, in one place."""

import argparse
import contextlib
import errno
import gc
import inspect
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, get_type_hints

import psutil

from stages.core.errors import StageError
from stages.core.params import load_section
from stages.core.times import price, record_time

SHELLS = ("sh", "bash", "dash", "zsh", "fish", "ksh", "cmd.exe", "powershell.exe")
LAUNCHER = "accelerate.commands.launch"  # stands between the processes of one training and the one that started them


def unleased(**_arguments: Any) -> AbstractContextManager[float]:
    """The lease of a stage that needs no GPU: none."""
    return contextlib.nullcontext(0.0)


def run_stage(main: Callable[..., None], lease: Callable[..., AbstractContextManager[float]] = unleased) -> None:
    """Run `main(params, **paths)` with params from params.yaml and paths from the command line.

    main's own signature says which: `params: CleanParams` is the section `clean`
    (its stage's folder), checked before any work; `data_raw: Path` is `--data-raw`,
    `name: str` a word. All are required. lease: told main's arguments, what main needs while it runs, and how many
    seconds it waited for that (`stages.core.gpus`).

    Exits with 1 and one line for a StageError, with 143 after SIGTERM, 130 after Ctrl-C.
    """
    if not gc.isenabled():  # as `stages` left it while libraries loaded: what they made is never looked at again
        gc.freeze()
        gc.enable()
    signal.signal(signal.SIGTERM, _stop)
    _follow_dvc()
    wanted = get_type_hints(main)
    wanted.pop("return")
    kind = wanted.pop("params", None)
    arguments: dict[str, Any] = _parse_arguments(main, wanted)
    try:
        if kind:
            arguments["params"] = load_section(Path("params.yaml"), kind, kind.__module__.split(".")[1])
        price()  # said wrongly, it stops before any work
        with lease(**arguments) as waited:
            main(**arguments)
            # RANK: one of the processes that a stage started
            if "DVC_STAGE" in os.environ and "RANK" not in os.environ:
                seconds = time.time() - psutil.Process().create_time() - waited
                record_time(os.environ["DVC_STAGE"], seconds)
    except StageError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        _fail("stopped; run it again to go on", status=130)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            _fail(f"{error.filename or 'a file'}: the disk is full; free some space and run again")
        if isinstance(error, FileNotFoundError) and error.filename:
            _fail(f"{error.filename}: is missing; `dvc repro` makes it, `dvc pull` fetches it")
        traceback.print_exc()
        sys.exit(1)


def _parse_arguments(main: Callable[..., None], wanted: dict[str, type]) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=inspect.getdoc(main))
    for name, kind in wanted.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, required=True)
    return vars(parser.parse_args())


def _fail(line: str, status: int = 1) -> NoReturn:
    sys.stderr.write(f"error: {line}\n")  # in one piece: processes of one training may say it at once
    sys.stderr.flush()
    sys.exit(status)


def _stop(number: int, _frame: FrameType | None) -> None:
    """SIGTERM unwinds like any exit, so that temporary files are removed."""
    sys.exit(128 + number)


def _follow_dvc() -> None:
    """End with SIGTERM when the dvc that started this process is gone.

    DVC does not pass SIGTERM on: its child would go on and write outputs that
    nobody waits for. Polling the parents works on every system, and also where
    a shell or accelerate's launcher stands between.
    """
    if "DVC_STAGE" not in os.environ:
        return
    parents = []
    for parent in psutil.Process().parents():
        parents.append(parent)
        if parent.name() not in SHELLS and LAUNCHER not in parent.cmdline():
            break

    def watch() -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            while all(parent.is_running() and parent.status() != psutil.STATUS_ZOMBIE for parent in parents):
                time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="follow-dvc", daemon=True).start()
