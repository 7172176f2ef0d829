"""Experiments side by side, with their pictures: python -m stages.tools.compare REV [REV ...]

REV: a commit, branch, tag or name of an experiment; "workspace" is what lies here. What DVC's cache lacks is fetched
from the remote, as `dvc pull` does.
"""

import argparse
import io
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from dvc.api import DVCFileSystem
from dvc.exceptions import DvcException
from dvc.scm import RevError
from fsspec.implementations.dirfs import DirFileSystem
from PIL import Image

from stages.core.errors import StageError
from stages.core.files import replacing
from stages.core.params import Yaml12Loader
from stages.report.charts import Line, line_chart
from stages.report.filling import fill
from stages.report.models import cards
from stages.report.pictures import data_url

WORKSPACE = "workspace"
MOST_PROMPTS = 40


@dataclass(frozen=True)
class Run:
    """A revision: its evaluation/figures.json, params, hash of the data, curve, and samples by (prompt, seed)."""

    name: str
    figures: Mapping[str, Any]
    params: Mapping[str, Any]
    data: str
    curve: list[tuple[float, float]]
    samples: Mapping[tuple[str, int], str]


def read_run(revision: str, model: str) -> Run:
    """What there is to compare of one model. Raises StageError if the revision lacks it, or is none."""
    files = DirFileSystem(".") if revision == WORKSPACE else DVCFileSystem(".", rev=revision)

    def read(path: str) -> bytes:
        try:
            return bytes(files.read_bytes(path))
        except RevError:
            raise StageError(revision, "is no revision", "`dvc exp list` names the experiments") from None
        except (FileNotFoundError, DvcException) as error:
            advice = "run it, or fetch it: `dvc pull`, `dvc exp pull`"
            raise StageError(revision, f"{path} isn't there ({type(error).__name__})", advice) from None

    figures = json.loads(read("reports/evaluation/figures.json"))
    if model not in figures["models"]:
        raise StageError(revision, f"has no model {model}", f"choose of {', '.join(figures['models'])}")
    listed = json.loads(read(f"data/samples/{model}/samples.json"))["pictures"]
    lock = yaml.safe_load(read("dvc.lock"))["stages"]
    return Run(
        revision,
        figures,
        yaml.load(read("params.yaml"), Loader=Yaml12Loader),  # noqa: S506 - a safe loader, with DVC's numbers
        lock["preprocess"]["outs"][0]["md5"],
        curve(read("reports/train/plots/metrics/validation/loss.tsv")),
        {
            (row["prompt"], row["seed"]): data_url(
                Image.open(io.BytesIO(read(f"data/samples/{model}/{row['file']}"))), 256
            )
            for row in listed[: MOST_PROMPTS * 4]
        },
    )


def curve(table: bytes) -> list[tuple[float, float]]:
    """(step, loss) as dvclive wrote them."""
    read = pd.read_csv(io.BytesIO(table), sep="\t")
    return list(zip(read["step"], read["loss"], strict=True))


def refuse_strangers(runs: Sequence[Run]) -> None:
    """Figures of two extractors mean nothing beside each other. Raises StageError."""
    for kind in ("extractor", "text"):
        used = {json.dumps(run.figures.get(kind), sort_keys=True): run for run in runs}
        if len(used) > 1:
            first, second = list(used.values())[:2]
            names = [str((run.figures.get(kind) or {}).get("name")) for run in (first, second)]
            raise StageError(
                second.name,
                f"was measured with {names[1]}, {first.name} with {names[0]}: these figures can't be compared",
                "evaluate both with the same section evaluate",
            )


def flat(values: Any, name: str = "") -> dict[str, str]:
    """Params by their full names, as `dvc exp run -S` takes them."""
    if isinstance(values, Mapping) and values:
        return {key: value for part in values for key, value in flat(values[part], f"{name}.{part}".strip(".")).items()}
    return {name: json.dumps(values, ensure_ascii=False)}


def differing(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """(param, its value in each run), those that aren't equal in all."""
    tables = [flat(run.params) for run in runs]
    names = sorted({name for table in tables for name in table})
    rows = [(name, [table.get(name, "–") for table in tables]) for name in names]
    return [(name, values) for name, values in rows if len(set(values)) > 1]


def page(runs: Sequence[Run], model: str) -> str:
    """One page with all of them."""
    refuse_strangers(runs)
    names = [run.name for run in runs]
    same = all(run.data == runs[0].data for run in runs)
    figures = {
        "models": {run.name: run.figures["models"][model] for run in runs},
        "held_out": runs[0].figures["held_out"] if same else {},
    }
    drawn = list(dict.fromkeys(pair for run in runs for pair in run.samples))
    prompts = list(dict.fromkeys(prompt for prompt, _ in drawn))[:MOST_PROMPTS]
    return fill(
        "compare.html.jinja",
        model=model,
        names=names,
        same_data=same,
        params=differing(runs),
        cards=cards(figures, names),
        chart=line_chart("step", "loss", [Line(run.name, run.curve, number) for number, run in enumerate(runs)]),
        prompts=[
            (
                prompt,
                [[run.samples[pair] for pair in drawn if pair[0] == prompt and pair in run.samples] for run in runs],
            )
            for prompt in prompts
        ],
    )


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("revisions", nargs="+", metavar="REV")
    parser.add_argument("--model", default="trained", help="which of the models")
    parser.add_argument("--out", type=Path, default=Path("reports/compare.html"))
    given = parser.parse_args()
    try:
        made = page([read_run(name, given.model) for name in dict.fromkeys(given.revisions)], given.model)
    except StageError as error:
        sys.exit(f"error: {error}")
    with replacing(given.out) as temporary:
        temporary.write_text(made, encoding="utf-8")
    print(f"Now open {given.out}")


if __name__ == "__main__":
    main()
