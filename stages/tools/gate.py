"""Whether a change can be merged: python -m stages.tools.gate, or `make gate`

It asks DVC two things, runs nothing and needs no data here: whether dvc.lock holds the results of this code and these
params, and whether the team's remote holds what dvc.lock names. A line each; exits with 1 if one of them isn't so.
"""

import json
import re
import subprocess
import sys
from dataclasses import dataclass

SHOWN = 5


@dataclass(frozen=True)
class Verdict:
    """What was asked, ok or fail or skip, and in words why."""

    question: str
    word: str
    why: str


def dvc(*words: str) -> subprocess.CompletedProcess[str]:
    """Run dvc with this Python."""
    command = [sys.executable, "-m", "dvc", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own words


def results() -> Verdict:
    """Whether a run would do nothing: what it would run first is not in dvc.lock as it is here."""
    asked = dvc("repro", "--dry", "--allow-missing")
    # DVC fails on a stage that would run and whose inputs aren't here.
    due = re.findall(r"(?:Running stage|failed to reproduce) '([^']+)'", asked.stdout + asked.stderr)
    if due:
        return Verdict(
            "results",
            "fail",
            f"{some(due)} would run: `dvc repro` (after git changed dvc.lock: `dvc checkout`), then commit it",
        )
    if asked.returncode:
        return Verdict("results", "fail", complaint(asked))
    return Verdict("results", "ok", "dvc.lock holds those of this code and these params")


def shared() -> Verdict:
    """Whether the default remote has every output and every file that was added."""
    remote = dvc("config", "core.remote").stdout.strip()
    if not remote:
        return Verdict("remote", "skip", "none is set, so nobody else can have the results: `dvc remote add -d`")
    asked = dvc("data", "status", "--not-in-remote", "--json")
    if asked.returncode:
        return Verdict("remote", "fail", complaint(asked))
    missing = json.loads(asked.stdout).get("not_in_remote", [])
    if missing:
        return Verdict("remote", "fail", f"{remote} lacks {some(missing)}: `dvc push`")
    return Verdict("remote", "ok", f"{remote} has all that dvc.lock names")


def some(names: list[str]) -> str:
    """The first names, and how many there are besides."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def complaint(asked: subprocess.CompletedProcess[str]) -> str:
    """What dvc said is wrong, its first line."""
    lines = [line for line in asked.stderr.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return (errors or lines or [f"dvc ended with {asked.returncode}"])[0]


def main() -> None:
    """Ask, say, and exit with 1 if something isn't so."""
    verdicts = [results(), shared()]
    for verdict in verdicts:
        print(f"{verdict.word:<5} {verdict.question:<8} {verdict.why}")
    sys.exit(any(verdict.word == "fail" for verdict in verdicts))


if __name__ == "__main__":
    main()
