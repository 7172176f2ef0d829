"""A shell in which lines of README and guide run as they stand, and what the text around them takes for granted."""

import re
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conftest import ROOT, commit, run, write_pictures
from tests.toy import edit

# A name for git; the project's programs for the toy, which has none.
IDENTITY = {f"GIT_{who}_{what}": "test@localhost" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
ENVIRONMENT: Any = {"PYTHONPATH": str(ROOT), **IDENTITY}
# What the page's words stand for here.
HERE = [
    (r"^make (?=.)", "make -o .venv/installed "),  # everything is installed
    (r"\.venv/bin/activate", f"{sys.prefix}/bin/activate"),
    (r"https://github\.com/you", "{hub}"),
    (r"/mnt/shared", "{shared}"),
    (r"<name>", "birds"),
    (r"EXPERIMENT|smoky-tofu(?= workspace| --model)", "gentle"),
    # The same in less time: fewer trials and pictures, a smaller model.
    (r"--trials 20", "--trials 2"),
    (r"(boomerang 1 sheet\.png)", r"\1 12"),
    (r"--params recipes/sd15-lora\.yaml", "--params recipes/pretrain-tiny.yaml"),
    (r"(stages\.tools\.sweep \S+)(?=\s+#)", r"\1 --trials 2"),
]


@dataclass
class Shell:
    """Runs a line where the one before it ended; `places` are the folders that words of the page stand for."""

    folder: Path
    places: dict[str, str]

    def run(self, line: str) -> str:
        """What the line said. Fails as a test does if it exits with another code than 0."""
        for pattern, meant in HERE:
            line = re.sub(pattern, meant, line)
        for name, place in self.places.items():
            line = line.replace(f"{{{name}}}", place)
        ended = Path(self.places["shared"]) / "folder"
        finished = run(self.folder, "bash", "-ec", f'{line}\npwd > "{ended}"', **ENVIRONMENT)
        self.folder = Path(ended.read_text().strip())
        return finished.stdout + finished.stderr


def shell_below(folder: Path, name: str, project: Path) -> Shell:
    """In an empty folder; the hub has the project under the name."""
    places = {each: str(folder / each) for each in ("hub", "shared")}
    for each in places.values():
        Path(each).mkdir(parents=True)
    run(folder, "git", "clone", "-q", "--bare", str(project), f"hub/{name}")
    return Shell(folder, places)


def toy_shell(toy: Path, folder: Path) -> Shell:
    """In a copy of the toy that shares a hub with a colleague's clone."""
    shell = shell_below(folder, "project", toy)
    shell.folder = folder / "toy"
    shutil.copytree(toy, shell.folder)
    run(shell.folder, "git", "remote", "add", "origin", f"{shell.places['hub']}/project")
    run(shell.folder, "git", "push", "-q", "-u", "origin", "main")
    run(folder, "git", "clone", "-q", f"{shell.places['hub']}/project", "colleague")
    return shell


def put_pictures(shell: Shell, command: str) -> None:
    folder = re.sub("<name>", "birds", command.split()[2])
    write_pictures(shell.folder / folder, 2)


def lower_the_rate(shell: Shell, command: str) -> None:
    edit(shell.folder, "train.learning_rate", 0.001)


def go_to_the_colleague(shell: Shell, command: str) -> None:
    shell.folder = shell.folder.parent / "colleague"


def conflict(shell: Shell, command: str) -> None:
    """Two branches have each run something."""
    for branch, key, value in (("rate", "train.learning_rate", 0.1), ("side", "clean.min_side", 32)):
        run(shell.folder, "git", "checkout", "-q", "-b", branch, "main")
        edit(shell.folder, key, value)
        run(shell.folder, "dvc", "repro", "-q")
        commit(shell.folder, branch)
    assert "conflict in dvc.lock" in run(shell.folder, "git", "merge", "rate", check=False, **ENVIRONMENT).stdout


def commit_and_push(shell: Shell, command: str) -> None:
    commit(shell.folder, "Merge")
    run(shell.folder, "dvc", "push", "-q")


def leave_the_project(shell: Shell, command: str) -> None:
    shell.folder = Path(shell.places["shared"])


def bring_the_tests(shell: Shell, command: str) -> None:
    """That miniatures come without; `make doctor` asks one of them."""
    (shell.folder / "tests").symlink_to(ROOT / "tests")


def wait_for_the_queue(shell: Shell, command: str) -> None:
    end = time.monotonic() + 120
    while re.search("Queued|Running", run(shell.folder, "dvc", "queue", "status").stdout):
        assert time.monotonic() < end, "the queue doesn't end"
        time.sleep(0.5)


# What has to be so before a command, as the text around it says, and what is waited for after.
BEFORE: dict[str, Callable[[Shell, str], None]] = {
    "dvc add data/": put_pictures,
    "git add -A && git commit": lower_the_rate,
    "git pull": go_to_the_colleague,
    "git checkout --theirs": conflict,
    "gto register": commit_and_push,
    "dvc artifacts get": leave_the_project,
    "make doctor": bring_the_tests,
}
AFTER: dict[str, Callable[[Shell, str], None]] = {"dvc queue start": wait_for_the_queue}
