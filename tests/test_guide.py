"""Every command of README and guide is run as it stands there: the page's own text, in a miniature of the project.

What is DVC's alone is run on a toy. What can't be run here is said to need something, in a comment that the reader sees
too: beside the command, or as a line of its own above it. "From a clone to a shared experiment" is run as one
afternoon, and what it shows of the programs' words is compared; the other sections follow in its first clone.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from tests.conftest import ROOT, run
from tests.pages import PARAGRAPHS, inline
from tests.shells import AFTER, BEFORE, Shell, shell_below, toy_shell
from tests.toy import make_toy

pytestmark = pytest.mark.slow

STORY = "docs/guide.md: From a clone to a shared experiment"
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


@pytest.fixture
def real(story: tuple[Shell, list[Turn]]) -> Iterator[Shell]:
    """The story's shell; params that a command replaced come back."""
    yield story[0]
    run(story[0].folder, "git", "checkout", "-q", "-f", "--", ".")


@pytest.mark.parametrize("section", SECTIONS)
def test_commands_run(section: str, real: Shell, toy: Path, tmp_path: Path) -> None:
    shell = usual = toy_shell(toy, tmp_path) if section in TOY else real
    left_out = list[str]()
    for command in commands(section):
        bare = re.sub(r"\s+# .*", "", command)
        if bare in ELSEWHERE:
            file, _, name = ELSEWHERE[bare].partition("::")
            assert f"def {name}(" in (ROOT / file).read_text() if name else (ROOT / file).exists()
            if bare.startswith("make "):
                real.run(bare.replace("make ", "make --dry-run ", 1))
            continue
        lacking = [library for part, library in EXTRAS.items() if part in bare and find_spec(library) is None]
        if lacking:
            left_out.append(f"{bare}: {lacking[0]} isn't installed: make extras")
            continue
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
    if left_out:
        pytest.skip("; ".join(left_out))


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
