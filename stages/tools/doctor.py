"""Look whether this machine and project are fit to run: a line each, ok or what to do. `make doctor`."""

import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import torch
from dvc.exceptions import DvcException
from dvc.fs import system
from dvc.repo import Repo
from huggingface_hub import constants

from stages.check.sections import SECTION_TYPES
from stages.core.errors import StageError
from stages.core.params import parse_section, read_params
from stages.tools.versions import locked_versions

ROOM = 5e9  # bytes: what the default params write, several times over
MEMORY = 4e9  # bytes: encode and train of the default params take 1.1 GB at most (reports/times.js)
IGNORED = "__pycache__/"  # else byte code, which isn't the same everywhere, is a part of every stage


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. do: what to do about it, empty where it is well."""

    name: str
    what: str
    do: str = ""

    def line(self) -> str:
        return f"{self.name:<9} {self.what}" + (f": {self.do}" if self.do else "")


def look_at_python(_root: Path) -> Finding:
    """Its version."""
    found = ".".join(map(str, sys.version_info[:3]))
    return Finding("python", found, "" if sys.version_info >= (3, 11) else "install 3.11 or newer")


def look_at_torch(root: Path) -> Finding:
    """Its version, against the lock file."""
    wanted = locked_versions((root / "requirements.lock").read_text(encoding="utf-8"))["torch"]
    found = version("torch")
    same = found.split("+")[0] == wanted
    return Finding("torch", found, "" if same else f"the lock file has {wanted}, and other versions give other bytes")


def look_at_device(_root: Path) -> Finding:
    """What there is to train on."""
    if torch.cuda.is_available():
        half = "bf16" if torch.cuda.is_bf16_supported() else "fp16"
        name = torch.cuda.get_device_name(0)
        return Finding("device", f"{torch.cuda.device_count()} x {name}, train.precision can be {half}")
    if torch.version.cuda is None and Path("/proc/driver/nvidia/version").is_file():
        return Finding("device", "there is an NVIDIA driver, and torch was built without CUDA", "see guide, On a GPU")
    return Finding("device", f"no GPU, {psutil.cpu_count(logical=False)} cores: miniatures; make plan says what else")


def look_at_memory(_root: Path) -> Finding:
    """What is free of it."""
    free = psutil.virtual_memory().available
    do = "" if free >= MEMORY else f"{MEMORY / 1e9:.0f} GB are wanted: close something, DARKROOM_WORKERS=1"
    return Finding("memory", f"{free / 1e9:.1f} GB free", do)


def look_at_disk(root: Path) -> Finding:
    """What is free on the project's."""
    free = psutil.disk_usage(str(root)).free
    do = "" if free >= ROOM else f"{ROOM / 1e9:.0f} GB are wanted: `dvc gc --workspace` frees some"
    return Finding("disk", f"{free / 1e9:.1f} GB free", do)


def look_at_links(root: Path) -> Finding:
    """Which of core/cache's link types works between the cache and the project: tried, not guessed."""
    with Repo(str(root)) as repo:
        cache = Path(repo.cache.local.path)
        wanted = repo.config["cache"].get("type", ["reflink", "copy"])
    kinds: dict[str, Callable[[str, str], Any]] = {"reflink": system.reflink, "hardlink": system.hardlink}
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as there, tempfile.TemporaryDirectory(dir=root / ".dvc") as here:
        source = Path(there, "file")
        source.write_text("x")
        for kind in wanted:
            try:
                kinds[kind](str(source), str(Path(here, kind)))
            except (OSError, KeyError):
                continue
            return Finding("links", f"{kind}: data in the cache takes no room twice")
    return Finding("links", "copy: every file is there twice", "put the cache on the project's disk: dvc cache dir")


def look_at_ignored(root: Path) -> Finding:
    """Whether byte code is kept out of what DVC compares."""
    path = root / ".dvcignore"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    if IGNORED in lines:
        return Finding("ignored", f".dvcignore has {IGNORED}")
    return Finding("ignored", f".dvcignore lacks {IGNORED}", "add it: stages run again for byte code without it")


def look_at_remote(root: Path) -> Finding:
    """Whether it can be reached, if there is one."""
    with Repo(str(root)) as repo:
        name = repo.config["core"].get("remote")
        if not name:
            return Finding("remote", "none, nothing is shared; dvc remote add -d NAME PLACE makes one")
        try:
            remote = repo.cloud.get_remote()
            there = remote.fs.exists(remote.path)
        except (DvcException, OSError, ImportError) as error:
            return Finding("remote", f"{name} can't be reached ({str(error).splitlines()[0]})", "dvc remote modify")
        except Exception as error:  # noqa: BLE001 - each kind of remote has errors of its own library
            return Finding("remote", f"{name} can't be reached ({type(error).__name__})", "check address and login")
    if there:
        return Finding("remote", f"{name}, reached")
    # Some kinds say the same of a place that is new and of one that doesn't answer.
    return Finding("remote", f"nothing is found at {name}", "`dvc push` fills it, or says why it can't be reached")


def look_at_params(root: Path) -> Finding:
    """Against their types."""
    try:
        tree = read_params(root / "params.yaml")
        for name, kind in SECTION_TYPES.items():
            parse_section(kind, name, tree.get(name))
    except StageError as error:
        return Finding("params", f"{error.where}: {error.what}", error.do)
    return Finding("params", "valid")


def look_at_deps(root: Path) -> Finding:
    """By the house's own test, which needs the developers' libraries."""
    if find_spec("grimp") is None or find_spec("pytest") is None:
        return Finding("deps", "not looked at: pip install -r requirements.lock has what it takes")
    tests = "deps_equal or sections_are or paths_in or versions_equal"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_house.py", "-k", tests]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)  # noqa: S603 - this project's own tests
    if done.returncode == 0:
        return Finding("deps", "dvc.yaml has what the code imports and reads")
    fault = next((line for line in done.stdout.splitlines() if line.startswith("E ")), "E   the test failed")
    return Finding("deps", f"dvc.yaml is not what the code imports ({fault[1:].strip()})", "edit dvc.yaml")


def look_at_hub(root: Path) -> Finding:
    """Reached only if params name something there."""
    try:
        tree = read_params(root / "params.yaml")
    except StageError:
        return Finding("hub", "not looked at: params are not valid")
    wanted = wanted_of_hub(tree)
    if not wanted:
        return Finding("hub", "not needed")
    try:
        with urllib.request.urlopen(f"{constants.ENDPOINT}/api/models/{wanted[0]}", timeout=10):  # noqa: S310 - the hub's own address
            return Finding("hub", f"reached, for {', '.join(wanted)}")
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            return Finding("hub", f"reached, {wanted[0]} wants a login", "hf auth login, and agree to its terms")
        return Finding("hub", f"reached, {wanted[0]} isn't found", "check its name in params.yaml")
    except OSError as error:
        reason = getattr(error, "reason", error)
        return Finding("hub", f"{constants.ENDPOINT} can't be reached ({reason})", f"{wanted[0]} is to come from there")


def wanted_of_hub(tree: Mapping[str, Any]) -> list[str]:
    """OWNER/NAME of every model that params name by hub:."""
    said = [(tree.get("base") or {}).get("model"), (tree.get("caption") or {}).get("model")]
    said.append((tree.get("score") or {}).get("clip"))
    return [name.removeprefix("hub:").partition("@")[0] for name in said if name and name.startswith("hub:")]


LOOKS: tuple[Callable[[Path], Finding], ...] = (
    look_at_python,
    look_at_torch,
    look_at_device,
    look_at_memory,
    look_at_disk,
    look_at_links,
    look_at_ignored,
    look_at_remote,
    look_at_params,
    look_at_deps,
    look_at_hub,
)


def main(root: Path) -> int:
    """Print a line each; how many ask for something to be done."""
    bad = 0
    for look in LOOKS:
        found = look(root)
        print(f"{'do  ' if found.do else 'ok  '}{found.line()}", flush=True)
        bad += bool(found.do)
    return bad


if __name__ == "__main__":
    sys.exit(min(1, main(Path())))
