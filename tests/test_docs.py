"""README, guide and decisions name commands, files and knobs that there are."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs" / "decisions").glob("*.md"))]
LINE = re.compile(r"^ {4}(?:\$ )?(?:\w+=\S+ )*((?:dvc|python -m|make|cp recipes/) ?.*)$", re.M)
INLINE = re.compile(r"`(?:\w+=\S+ )*((?:dvc|python -m|make) [^`]*)`")


def commands(page: Path) -> list[str]:
    """Those in code blocks and in the text, without comments and what they are piped into."""
    text = page.read_text()
    found = [*LINE.findall(text), *(" ".join(each.split()) for each in INLINE.findall(text))]
    return [part for each in found for part in re.split(r" +# .*$|; | && | \| ", each) if part.strip()]


CASES = sorted({(page.relative_to(ROOT).as_posix(), each.strip()) for page in PAGES for each in commands(page)})


def words(command: str) -> list[str]:
    """As a shell would have them; variables stand for a word."""
    return shlex.split(re.sub(r"\$\w+", "0.5", command).replace("...", "x"))


@pytest.mark.parametrize(("page", "command"), [case for case in CASES if case[1].startswith("dvc ")])
def test_dvc_commands_are_such(page: str, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    from dvc.cli import parse_args
    from dvc.cli.parser import DvcParserError

    if command in ("dvc add", "dvc exp", "dvc plots", "dvc metrics"):  # named in a sentence
        return
    try:
        parse_args(words(command)[1:])
    except (DvcParserError, SystemExit):
        pytest.fail(f"{page}: {command}\n{capsys.readouterr().err}")


@pytest.mark.parametrize(("page", "command"), [case for case in CASES if case[1].startswith("python -m ")])
def test_programs_are_there(page: str, command: str) -> None:
    module = command.split()[2]
    if not module.startswith(("stages", "benchmarks")):
        return
    assert "METHOD" in module or importlib.util.find_spec(module), f"{page}: {command}"


@pytest.mark.parametrize(("page", "command"), [case for case in CASES if case[1].startswith("make ")])
def test_targets_are_there(page: str, command: str) -> None:
    text = (ROOT / "Makefile").read_text()
    for target in (word for word in words(command)[1:] if "=" not in word):
        assert re.search(rf"^{re.escape(target)}:", text, re.M), f"{page}: {command}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_of_the_project_are_there(page: Path) -> None:
    """Paths in backticks that belong to git, links to other pages, recipes."""
    text = page.read_text()
    named = re.findall(r"`((?:stages|tests|benchmarks|recipes|compute|docs|launchers)/[\w./-]+)`", text)
    named += [f"recipes/{name}" for name in re.findall(r"cp recipes/(\S+)", text)]
    missing = [name for name in named if not (ROOT / name).exists() and not (ROOT / f"{name}.yaml").exists()]
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    missing += [link for link in links if link and not (page.parent / link).exists()]
    assert not missing


def test_the_knobs_in_the_text_are_knobs() -> None:
    """`section.knob` as the schema has it."""
    sections = set(yaml.safe_load((ROOT / "params.yaml").read_text()))
    known = set(re.findall(r"`([a-z_]+(?:\.[a-z_0-9]+)+)`", (ROOT / "docs" / "params.md").read_text()))
    assert len(known) > 100
    named = {
        (page.name, knob)
        for page in (ROOT / "README.md", ROOT / "docs" / "guide.md")
        for knob in re.findall(rf"`((?:{'|'.join(sections)})\.[a-z_.0-9]+)`", page.read_text())
    }
    assert named
    named = {each for each in named if not each[1].endswith((".png", ".json"))}
    unknown = {each for each in named if each[1] not in known and not any(k.startswith(f"{each[1]}.") for k in known)}
    assert not unknown
