"""Every command of README and guide is run as it stands there: the page's own text, in a miniature of the project.

What is DVC's alone is run on a toy. What can't be run here is said to need something, in a comment that the reader sees
too: beside the command, or as a line of its own above it. "From a clone to a shared experiment" is run as one
afternoon, and what it shows of the programs' words is compared; the other sections follow in its first clone.
"""

import json
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from tests.conftest import ROOT, commit, run, write_pictures
from tests.pages import PARAGRAPHS, inline
from tests.toy import edit, make_toy

pytestmark = pytest.mark.slow

STORY = "docs/guide.md: From a clone to a shared experiment"
# A name for git; the project's programs for the toy, which has none.
IDENTITY = {f"GIT_{who}_{what}": "test@localhost" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
ENVIRONMENT: Any = {"PYTHONPATH": str(ROOT), **IDENTITY}
NEEDS = re.compile(r"needs (?:the network|a GPU|several machines)")
# What other tests run, and where.
ELSEWHERE = {
    "make test": "tests",
    "pytest tests/preprocess/test_buckets.py": "tests/preprocess/test_buckets.py",
    "pytest -m slow tests/recipes": "tests/recipes",
    "make plan ARGS=--calibrate": "tests/tools/test_plan.py::test_calibration_measures",
}
# Sections about what DVC does with any project.
TOY = {
    *(f"README.md: {name}" for name in ("Your own pictures", "Compare", "Share")),
    *(f"docs/guide.md: {name}" for name in ("Known data sets", "Pictures for a ControlNet", "Sweep a merge")),
    *(f"docs/guide.md: {name}" for name in ("Experiments", "Work as a team", "How many processes")),
}
# What needs figures and pictures, in whatever section.
RESULTS = re.compile(r"stages\.tools\.compare|dvc plots")
# Commands that need a library of `make extras`.
EXTRAS = {"stages.tools.sweep": "optuna"}
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


def commands(section: str) -> Iterator[str]:
    """Lines of its blocks and commands in its text, but for those that need what isn't here.

    Of the text, what a block of either page has isn't repeated.
    """
    yield from (command for command in listed(section) if not NEEDS.search(command))


def listed(section: str) -> Iterator[str]:
    """All of them; a comment that is a line of its own stands behind each line below it."""
    for paragraph in (each for each in PARAGRAPHS if each.section == section):
        if paragraph.kind == "shell":
            above = ""
            for line in paragraph.text.splitlines():
                above = line if line.startswith("#") else above
                if not line.startswith("#"):
                    yield f"{line}  {above}" if above else line
        elif paragraph.kind == "text":
            yield from (each for each in inline(paragraph) if each not in IN_BLOCKS)


BLOCKS = [each for each in PARAGRAPHS if each.kind in ("shell", "session")]
IN_BLOCKS = {re.sub(r"^\$ |\s+# .*", "", line) for each in BLOCKS for line in each.text.splitlines()}
SECTIONS = [each for each in dict.fromkeys(one.section for one in PARAGRAPHS) if any(commands(each))]


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


@dataclass(frozen=True)
class Turn:
    """A command of the story, what the page shows of its words, and what it said."""

    command: str
    shown: str
    said: str


@pytest.fixture(scope="module")
def story(miniature: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Shell, list[Turn]]:
    """The afternoon. The first clone takes from the miniature's cache what was run there; a shell in it."""
    start = tmp_path_factory.mktemp("story")
    shell, turns = shell_below(start, "your-darkroom", miniature), list[Turn]()
    for paragraph in (each for each in PARAGRAPHS if each.section == STORY and each.kind == "session"):
        for turn in re.split(r"^\$ ", paragraph.text, flags=re.M)[1:]:
            command, _, shown = turn.partition("\n")
            if command.startswith("git clone"):
                shell.folder = start
            turns.append(Turn(command, shown, shell.run(command)))
            if len(turns) == 1:
                run(shell.folder, "dvc", "cache", "dir", "--local", str(miniature / ".dvc" / "cache"))
                run(shell.folder, "dvc", "checkout", "-q", "data/sources/drawings.dvc")
    shell.folder = start / "darkroom"
    return shell, turns


def words(text: str) -> list[str]:
    """Lines, whatever the numbers in them and the width of the columns."""
    return [" ".join(re.sub(r"-?\b\d[\d.,]*(?:e-?\d+)?\b", "0", line).split()) for line in text.splitlines()]


def test_the_programs_say_what_the_page_shows(story: tuple[Shell, list[Turn]]) -> None:
    turns = story[1]
    assert sum(bool(turn.shown) for turn in turns) > 5
    for turn in turns:
        figures = "reports/evaluation.json"  # another model's
        wanted = [line for line in words(turn.shown) if line and not line.startswith(figures)]
        assert [line for line in wanted if line not in words(turn.said)] == [], f"{turn.command}\n{turn.said}"
        assert figures not in turn.shown or figures in turn.said


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the two experiments that the guide names."""
    project = make_toy(tmp_path_factory.mktemp("guide"))
    for name, rate in (("smoky-tofu", "0.1"), ("rusty-lamp", "0.001")):
        run(project, "dvc", "exp", "run", "-q", "--name", name, "-S", f"train.learning_rate={rate}")
    run(project, "git", "checkout", "-q", "--", ".")
    run(project, "dvc", "checkout", "-q", "--force")
    return project


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


# What has to be so before a command, as the text around it says, and what is to be waited for after.
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


@pytest.fixture
def real(story: tuple[Shell, list[Turn]]) -> Iterator[Shell]:
    """The story's shell; params that a command replaced come back."""
    yield story[0]
    run(story[0].folder, "git", "checkout", "-q", "-f", "--", ".")


@pytest.mark.parametrize("section", SECTIONS)
def test_commands_run(section: str, real: Shell, toy: Path, tmp_path: Path) -> None:
    shell = usual = toy_shell(toy, tmp_path) if section in TOY else real
    for command in commands(section):
        bare = re.sub(r"\s+# .*", "", command)
        if bare in ELSEWHERE:
            file, _, name = ELSEWHERE[bare].partition("::")
            assert name in (ROOT / file).read_text() if name else (ROOT / file).exists()
            continue
        if any(part in command for part in EXTRAS):
            pytest.importorskip(next(library for part, library in EXTRAS.items() if part in command))
        if re.search("s3://|ssh://", bare):  # to be set, not to be reached
            shell = toy_shell(toy, tmp_path / str(len(list(tmp_path.iterdir()))))
        elif not bare.startswith("dvc remote modify"):
            shell = real if RESULTS.search(bare) else usual
        for start, prepare in BEFORE.items():
            if bare.startswith(start):
                prepare(shell, bare)
        said = shell.run(command)
        for start, then in AFTER.items():
            if bare.startswith(start):
                then(shell, bare)
        for file in re.findall(r"# .*?writes (\S+)", command):
            assert (shell.folder / file).is_file(), f"{command}\n{said}"


def test_what_is_run_elsewhere_and_what_is_needed_stands_in_the_pages() -> None:
    """Nothing stands in the tables above that the pages don't say."""
    found = [command for section in SECTIONS for command in commands(section)]
    bare = {re.sub(r"\s+# .*", "", command) for command in found}
    assert set(ELSEWHERE) <= bare
    assert set(SECTIONS) >= TOY
    for start in (*BEFORE, *AFTER, *EXTRAS):
        assert any(start in command for command in bare), start


def test_the_page_of_plots(real: Shell) -> None:
    shown = re.search("file://(.*)", real.run("dvc plots show -o .dvc/tmp/page"))
    assert shown
    page = Path(shown[1]).read_text()
    assert "Loss while training" in page
    assert "reports_train_previews" in page


def test_vs_codes_extension_gets_curves_and_pictures(real: Shell) -> None:
    """What `iterative.dvc` asks (extension/src/cli/dvc/reader.ts), and where it looks for a slider of pictures."""

    def ask(*command: str) -> Any:
        return json.loads(run(real.folder, "dvc", *command, "--json").stdout)

    shown = {
        revision["name"]: revision["data"]
        for row in ask("exp", "show", "--no-fetch", "-n", "3")
        for experiment in row["experiments"] or []
        for revision in experiment["revs"]
    }
    assert shown["gentle"]["params"]["params.yaml"]["data"]["train"]["learning_rate"] == 2.5e-4
    assert shown["gentle"]["metrics"]["reports/evaluation.json"]["data"]["trained"]["loss"] > 0
    assert "models/trained/" in ask("data", "status", "--granular", "--unchanged")["unchanged"]
    plots = ask("plots", "diff", "main", "gentle", "-o", ".dvc/tmp/plots", "--split")
    assert "errors" not in plots
    for entry in yaml.safe_load((ROOT / "dvc.yaml").read_text())["plots"]:
        name = entry if isinstance(entry, str) else next(iter(entry))
        drawn = [plot for key in plots["data"] if f"{key}/".startswith(f"{name}/") for plot in plots["data"][key]]
        assert drawn, f"{name} is empty"
        for plot in drawn:
            if plot["type"] == "image":
                with Image.open(plot["url"]) as picture:
                    assert min(picture.size) >= 32
            else:
                assert plot["anchor_definitions"]["<DVC_METRIC_DATA>"]
    [loss] = plots["data"]["loss"]
    rows = loss["anchor_definitions"]["<DVC_METRIC_DATA>"]
    assert {row["filename"] for row in rows} == {"train/loss.tsv", "validation/loss.tsv"}
    pictures = [key for key, found in plots["data"].items() if found[0]["type"] == "image"]
    sliders = [key for key in pictures if re.search(r"[^/]+/\d+\.[a-z]+$", key)]  # MULTI_IMAGE_PATH_REG
    assert sliders == [key for key in pictures if key.startswith("reports/train/previews/")] != []
