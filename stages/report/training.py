"""How the training went, laid out for the page: curves, previews, merges by their ratio."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from stages.report.charts import Chart, Line, line_chart
from stages.report.pictures import data_url

NOISE = "share of the noise schedule (0: little noise, 1: noise alone)"


def curves(train: Path) -> list[tuple[str, Chart]]:
    """Losses over the steps, whole and by timestep, and the learning rate; what wasn't logged is left out."""
    both = [("train", "training"), ("validation", "validation")]
    charts = {
        "Loss": line_chart(
            "step", "loss", [Line(name, points(train, f"{kind}/loss"), i) for i, (kind, name) in enumerate(both)]
        ),
        "Validation loss by timestep": by_timestep(train),
        "Gradient norm": line_chart("step", "norm", [Line("gradient norm", points(train, "train/gradient_norm"), 3)]),
        "Learning rate": line_chart("step", "rate", [Line("learning rate", points(train, "train/learning_rate"), 5)]),
    }
    return [(heading, chart) for heading, chart in charts.items() if chart]


def by_timestep(train: Path, most: int = 5) -> Chart | None:
    """Some of the bins' validation losses over the steps, from little noise to nothing but noise."""
    files = sorted((_metrics(train) / "validation" / "bins").glob("*.tsv"))
    count = min(most, len(files))
    chosen = sorted({round(number * (len(files) - 1) / max(1, count - 1)) for number in range(count)})
    lines = [
        Line(
            f"{number / len(files):.0%} to {(number + 1) / len(files):.0%} of the schedule",
            points(train, f"validation/bins/{files[number].stem}"),
            colour,
        )
        for colour, number in enumerate(chosen)
    ]
    return line_chart("step", "loss", lines)


def points(train: Path, name: str) -> list[tuple[float, float]]:
    """(step, value) as dvclive wrote them; none if it didn't."""
    path = _metrics(train) / f"{name}.tsv"
    if not path.is_file():
        return []
    table = pd.read_csv(path, sep="\t")
    return list(zip(table["step"], table[path.stem], strict=True))


def _metrics(train: Path) -> Path:
    return train / "plots" / "metrics"


def previews(train: Path) -> list[tuple[int, str]]:
    """(step, sheet) of the previews in order."""
    return [(int(path.stem), data_url(Image.open(path), 900)) for path in sorted((train / "previews").glob("*.png"))]


def timestep_chart(validation: Path, models: Sequence[str]) -> Chart | None:
    """Each model's validation loss from little noise to nothing but noise."""
    table = pd.read_csv(validation)
    bins = int(table["bin"].max()) + 1
    return line_chart(
        NOISE,
        "validation loss",
        [
            Line(model, [((row.bin + 0.5) / bins, row.loss) for row in table[table["model"] == model].itertuples()], n)
            for n, model in enumerate(models)
        ],
    )


def ratio_chart(merges: Path) -> Chart | None:
    """Validation loss by ratio, a line a method; None where no method has two ratios."""
    table = pd.read_csv(merges).dropna(subset=["ratio"])
    methods = [(str(name), rows) for name, rows in table.groupby("method") if rows["ratio"].nunique() > 1]
    return line_chart(
        "ratio",
        "validation loss",
        [
            Line(name.replace("_", " "), list(zip(rows["ratio"], rows["loss"], strict=True)), n, dots=True)
            for n, (name, rows) in enumerate(methods)
        ],
    )


def merge_rows(facts: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What each recipe's merge.json says: its words, how far the blocks went, what was lost.

    facts: merge.json by recipe.
    """
    rows = []
    for name, found in facts.items():
        recipe = {
            key: value for key, value in found["merge"]["recipe"].items() if value not in ({}, [], "", None, False)
        }
        blocks = found.get("relative_delta_by_block") or {}
        largest = max(blocks.values(), default=0.0) or 1.0
        rows.append(
            {
                "name": name,
                "recipe": ", ".join(f"{key} {value}" for key, value in sorted(recipe.items())),
                "delta": found.get("relative_delta"),
                "lost": found.get("lost_to_rounding"),
                "said": found.get("said", []),
                "blocks": [(block, value, round(100 * value / largest, 1)) for block, value in blocks.items()],
            }
        )
    return rows
