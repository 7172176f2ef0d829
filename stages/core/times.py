"""How long each stage took here: a file that the page reads when it is opened, and that nothing depends on."""

import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

from stages.core.errors import StageError
from stages.core.files import replacing

TIMES = Path("reports", "times.js")  # a script, since a page that was opened as a file may read nothing else
OPENING = "const times = "


def price() -> float:
    """What an hour of this machine costs, DARKROOM_PRICE, in whatever money; 0 where it isn't said.

    Raises StageError if it is no number.
    """
    said = os.environ.get("DARKROOM_PRICE", "0")
    try:
        return float(said)
    except ValueError:
        raise StageError("DARKROOM_PRICE", f"is {said!r}", "set it to a number, what an hour costs") from None


def record_time(stage: str, seconds: float) -> None:
    """Note how long `stage` ran, how much memory it took and what an hour costs, beside what is known of the others."""
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, bytes
    most = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) * unit
    times = read_times(TIMES)
    times[stage] = {"seconds": round(seconds, 1), "megabytes": round(most / 1e6), "price": price(), "on": machine()}
    with replacing(TIMES) as temporary:
        temporary.write_text(f"{OPENING}{json.dumps(times, indent=1)};\n", encoding="utf-8")


def read_times(path: Path) -> dict[str, Any]:
    """What is noted, by stage; nothing if the file isn't there or isn't ours."""
    try:
        text = path.read_text(encoding="utf-8")
        return dict(json.loads(text.removeprefix(OPENING).rstrip().removesuffix(";")))
    except (OSError, ValueError):
        return {}


def machine() -> str:
    """The GPUs that the stage could have used, or how many processors."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
        return ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names))
    return f"{os.cpu_count()} processors"
