"""Cards to publish a model and its data with: python -m stages.tools.cards [--model trained] [--out cards]

Everything in them is read: what the weights say of their making, figures, counts, licences. Writes model.md and
data.md, as the Hugging Face Hub shows them (README.md of a repository), and samples.png. What a machine can't know (for
whom it is meant, what it shouldn't be used for) stands there as a question.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from stages.core.errors import StageError
from stages.core.files import replacing
from stages.report.data import RULES, captions_of, credit_rows
from stages.report.filling import fill
from stages.report.lineage import facts, provenance
from stages.report.models import FIGURES

# As the hub names licences; others are `other`, with the data's own words below.
LICENCES = {
    "CC0": "cc0-1.0",
    "CC BY 4.0": "cc-by-4.0",
    "CC BY-SA 4.0": "cc-by-sa-4.0",
    "CC BY-NC 4.0": "cc-by-nc-4.0",
    "CC BY-NC-SA 4.0": "cc-by-nc-sa-4.0",
    "Apache-2.0": "apache-2.0",
    "MIT": "mit",
}


def read_json(path: Path) -> Any:
    """Raises StageError if it isn't there."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StageError(path.as_posix(), "is missing", "`dvc repro` makes it, `dvc pull` fetches it") from None


def licence_of(kept: pd.DataFrame) -> str:
    """The hub's name of the data's licence, `other` where there are several or none."""
    found = set(kept["license"].fillna(""))
    return LICENCES.get(found.pop(), "other") if len(found) == 1 else "other"


def figure_rows(figures: Mapping[str, Any], model: str) -> list[tuple[str, str, str, str]]:
    """(heading, value with interval, base's, real pictures') of each figure of a model."""

    def told(found: Mapping[str, Any] | None) -> str:
        if found is None:
            return "–"
        interval = "" if found["low"] is None else f" ({found['low']:.3g} to {found['high']:.3g})"
        return f"{found['value']:.3g}{interval}"

    own, base = figures["models"][model], figures["models"]["base"]
    real = figures["held_out"]
    return [
        (heading, told(own[name]), told(base.get(name)), f"{real[name]:.3g}" if name in real else "–")
        for name, (heading, _, _) in FIGURES.items()
        if name in own
    ]


def model_card(root: Path, model: str) -> str:
    """The model's README.md. Raises StageError for a model that no run makes."""
    figures = read_json(root / "reports" / "evaluation" / "figures.json")
    if model not in figures["models"]:
        raise StageError("--model", f"no model is named {model}", f"use {', '.join(figures['models'])}")
    folder = root / "models" / (model if model in ("base", "trained") else f"merged/{model}")
    about = provenance(folder)
    samples = read_json(root / "data" / "samples" / model / "samples.json")
    kept = pd.read_parquet(root / "data" / "clean" / "manifest.parquet")
    return fill(
        "model.md.jinja",
        front=yaml.safe_dump(
            {
                "license": licence_of(kept),
                "tags": ["text-to-image", "stable-diffusion", "diffusers"],
                "library_name": "diffusers",
            },
            sort_keys=False,
        ),
        model=model,
        pipeline=read_json(folder / "model_index.json")["_class_name"],
        facts=facts(model, about, samples["weights_sha256"]),
        params=json.dumps(about.get("params", {}), indent=1, sort_keys=True) if about else "",
        figures=figure_rows(figures, model),
        prompts=list(dict.fromkeys(row["prompt"] for row in samples["pictures"])),
        credits=credit_rows(kept),
    )


def data_card(root: Path) -> str:
    """The data's README.md."""
    kept = pd.read_parquet(root / "data" / "clean" / "manifest.parquet")
    rejected = pd.read_parquet(root / "data" / "clean" / "rejected.parquet")
    lock = yaml.safe_load((root / "dvc.lock").read_text(encoding="utf-8"))["stages"]
    counts = rejected.groupby("rule")["key"].nunique().sort_index()
    return fill(
        "data.md.jinja",
        front=yaml.safe_dump({"license": licence_of(kept), "task_categories": ["text-to-image"]}, sort_keys=False),
        collected=read_json(root / "reports" / "collect.json"),
        kept=len(kept),
        rejected=int(rejected["key"].nunique()),
        splits=sorted(kept["split"].value_counts().items()),
        reasons=[(str(rule), RULES[str(rule).partition(" ")[0]][0], int(count)) for rule, count in counts.items()],
        captions=captions_of(kept),
        credits=credit_rows(kept),
        digest=lock["clean"]["outs"][0]["md5"],
    )


def main() -> None:
    """Write the cards."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="trained", help="which of the models")
    parser.add_argument("--out", type=Path, default=Path("cards"))
    given = parser.parse_args()
    root = Path()
    try:
        cards = {"model.md": model_card(root, given.model), "data.md": data_card(root)}
    except StageError as error:
        sys.exit(f"error: {error}")
    with replacing(given.out) as folder:
        for name, text in cards.items():
            (folder / name).write_text(text, encoding="utf-8")
        shutil.copyfile(root / "data" / "samples" / given.model / "grid.png", folder / "samples.png")
    print(f"{given.out}: model.md, data.md, samples.png; answer the questions in them before you publish")


if __name__ == "__main__":
    main()
