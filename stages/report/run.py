"""report: one page to look at.

in    what the stages before left: counts, doors, curves, samples, figures
out   reports/index.html  with every picture inside: no network, no server, no script
"""

import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from stages.core.draws import uniform
from stages.core.files import replacing
from stages.core.pairs import FAILURES, read_rows, shards_below
from stages.core.stage import run_stage
from stages.report.charts import Chart, Line, line_chart
from stages.report.finished import boomerang, buckets, channels, left_out, rows_made
from stages.report.params import ReportParams
from stages.report.pictures import data_url, places_of, raw_pictures

RULES = {  # rule -> what it means, the knob behind it
    "decode": ("can't be decoded", ""),
    "min_side": ("too small", "clean.min_side"),
    "max_aspect": ("too long and narrow", "clean.max_aspect"),
    "min_entropy": ("nearly one colour", "clean.min_entropy"),
    "min_sharpness": ("blurred", "clean.min_sharpness"),
    "min_contrast": ("nearly one grey", "clean.min_contrast"),
    "max_border": ("mostly border", "clean.max_border"),
    "max_transparent": ("nearly all transparent", "clean.max_transparent"),
    "no_caption": ("no caption", "clean.captions"),
    "bad_caption": ("no good caption", "clean.captions"),
    "duplicate": ("looks like another picture", "clean.duplicates"),
    "decontaminate": ("looks like a benchmark picture", "clean.duplicates"),
    "benchmark": ("benchmark, never trained on", "collect.sources"),
    "balance": ("enough of its kind", "clean.balance"),
    "filter": ("fails a condition", "clean.filters"),
    "review": ("a person said so", "data/review.csv"),
}
FIGURES = {
    "validation_loss": "validation loss: mean squared error on held-out pictures, lower is better",
    "kernel_distance": "kernel distance of its samples to held-out pictures, lower is more alike",
}


def main(
    params: ReportParams,
    raw: Path,
    clean: Path,
    processed: Path,
    train: Path,
    samples: Path,
    evaluation: Path,
    curves: Path,
    collected: Path,
    captioned: Path,
    cleaned: Path,
    finished: Path,
    encoded: Path,
    out: Path,
) -> None:
    """Gather, then fill the template."""
    table = read_json(evaluation)
    figures = {name: table[name] for name in sorted(table, key=lambda name: (name != "base", name != "trained", name))}
    kept = pd.read_parquet(clean / "manifest.parquet")
    made, latents = read_json(finished), read_json(encoded)
    page = fill(
        title=params.title,
        funnel=funnel(read_json(collected), read_json(cleaned), made),
        captions=caption_counts(read_json(collected), read_json(captioned)),
        models=list(figures),
        figures=figure_rows(figures),
        vae_psnr=latents["vae_psnr"],
        figure_names=FIGURES,
        prompts=drawn(samples, list(figures)),
        charts=[chart for chart in (loss_chart(train), timestep_chart(curves, list(figures))) if chart],
        previews=[
            (int(path.stem), data_url(Image.open(path), 900)) for path in sorted((train / "previews").glob("*.png"))
        ],
        kept=kept_examples(params, processed),
        rows_made=rows_made(made),
        left_out=left_out(made),
        buckets=buckets(made),
        channels=channels(made),
        boomerang=boomerang(latents),
        repeated=repeated_captions(kept),
        rejected=rejected_examples(params, raw, clean),
        failures=failure_rows(raw),
        credits=credit_rows(kept),
    )
    with replacing(out) as temporary:
        temporary.write_text(page, encoding="utf-8")
    print(f"{out}: {len(page.encode()) / 1e6:.1f} MB")


def fill(**values: Any) -> str:
    """The page with these values in it; one that it asks for and isn't there is an error."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("page.html.jinja").render(values)


def funnel(collected: dict[str, Any], cleaned: dict[str, Any], finished: dict[str, Any]) -> list[tuple[str, int, str]]:
    """(name, pictures, what happened to the others) from asked for to trained on."""
    found = sum(source["pictures"] for source in collected.values())
    failed = sum(source["failures"] for source in collected.values())
    lost = {"too small": finished["too_small"], "without a condition": finished.get("without_condition", 0)}
    said = "".join(f", {count:,} {why}" for why, count in lost.items() if count)
    return [
        ("asked for", found + failed, ""),
        ("collected", found, f"{failed:,} could not be used"),
        ("kept", cleaned["kept"], f"{cleaned['rejected']:,} rejected"),
        ("trained on", finished["train"], f"{finished['validation']:,} held out{said}"),
    ]


def caption_counts(collected: dict[str, Any], captioned: dict[str, int]) -> dict[str, int]:
    """How many pictures came without a caption of their own, and who gave them one."""
    fallback = sum(source["fallback_caption"] for source in collected.values())
    return {
        "missing": captioned["without_caption"] + fallback,
        "fallback": fallback,
        "model": captioned["captioned"],
        "none": captioned["without_caption"] - captioned["captioned"],
    }


def figure_rows(figures: dict[str, dict[str, float]]) -> list[tuple[str, list[tuple[str, bool]]]]:
    """For each figure its name and, a model, the value and whether it is the best (the lowest)."""
    rows = []
    for name in FIGURES:
        values = [table.get(name) for table in figures.values()]
        known = [value for value in values if value is not None]
        rows.append((name, [("–", False) if v is None else (f"{v:.4g}", v == min(known)) for v in values]))
    return rows


def drawn(samples: Path, models: list[str]) -> list[tuple[str, list[tuple[str, list[str]]]]]:
    """For each prompt, each model and its pictures, all seeds."""
    tables = {model: read_json(samples / model / "samples.json")["pictures"] for model in models}

    def pictures(model: str, prompt: str) -> list[str]:
        return [data_url(Image.open(samples / model / row["file"])) for row in tables[model] if row["prompt"] == prompt]

    prompts = dict.fromkeys(row["prompt"] for row in tables[models[0]])
    return [(prompt, [(model, pictures(model, prompt)) for model in models]) for prompt in prompts]


def loss_chart(train: Path) -> tuple[str, Chart] | None:
    """Training and validation loss over the steps."""
    lines = []
    for colour, (file, name) in enumerate((("train/loss.tsv", "training"), ("validation/loss.tsv", "validation"))):
        path = train / "plots" / "metrics" / file
        if path.is_file():
            table = pd.read_csv(path, sep="\t")
            lines.append(Line(name, list(zip(table["step"], table["loss"], strict=True)), colour))
    chart = line_chart("step", "loss", lines)
    return ("Loss while training", chart) if chart else None


def timestep_chart(curves: Path, models: list[str]) -> tuple[str, Chart] | None:
    """Each model's validation loss from little noise to nothing but noise."""
    table = pd.read_csv(curves)
    bins = int(table["bin"].max()) + 1
    lines = [
        Line(model, [((row.bin + 0.5) / bins, row.loss) for row in table[table["model"] == model].itertuples()], colour)
        for colour, model in enumerate(models)
    ]
    chart = line_chart("share of the noise schedule (0: little noise, 1: noise alone)", "validation loss", lines)
    return ("Validation loss by timestep", chart) if chart else None


def kept_examples(params: ReportParams, processed: Path) -> list[tuple[str, str]]:
    """(picture, caption) of some finished pictures, chosen by key."""
    paths = shards_below(processed)
    keys = [row["key"] for row in read_rows(paths, ["key", "variant"]) if row["variant"] == 0]
    chosen = set(sorted(keys, key=lambda key: uniform("report", key))[: params.kept_examples])
    shown = []
    for row in read_rows(paths, ["key", "variant", "image", "captions"]):
        if row["key"] in chosen and row["variant"] == 0:
            picture = data_url(Image.open(io.BytesIO(row["image"]["bytes"])), 96)
            shown.append((picture, row["captions"][0] if row["captions"] else ""))
    return shown


def repeated_captions(kept: pd.DataFrame, most: int = 10) -> dict[str, Any]:
    """How unevenly captions are spread: distinct ones, those of a single picture, the most frequent."""
    counts = kept["captions"].explode().value_counts()
    first = sorted(counts[counts > 1].items(), key=lambda item: (-item[1], item[0]))[:most]
    return {"distinct": len(counts), "single": int((counts == 1).sum()), "first": first}


def rejected_examples(params: ReportParams, raw: Path, clean: Path) -> list[dict[str, Any]]:
    """For each rule how many pictures broke it, and some of them; a duplicate beside the one that stays."""
    rejected = pd.read_parquet(clean / "rejected.parquet")
    rejected["keeper"] = rejected["keeper"].fillna("")
    keepers = places_of(raw) if rejected["keeper"].any() else {}
    rules, wanted = [], set()
    for rule, rows in sorted(rejected.groupby("rule"), key=lambda item: (-len(item[1]), item[0])):
        chosen = telling(rows.to_dict("records"), params.rejected_examples)
        rules.append((str(rule), len(rows), chosen))
        wanted |= {(row["shard"], row["row"]) for row in chosen}
        wanted |= {keepers[row["keeper"]] for row in chosen if row["keeper"]}
    pictures = raw_pictures(raw, wanted)
    return [
        {
            "means": RULES[rule.partition(" ")[0]][0],
            "knob": RULES[rule.partition(" ")[0]][1],
            "count": count,
            "bound": chosen[0]["bound"] if chosen and rule != "review" else "",
            "measured": bool(chosen) and _number(chosen[0]["value"]) is not None,
            "paired": any(row["keeper"] for row in chosen),
            "examples": [
                {
                    "picture": pictures.get((row["shard"], row["row"])),
                    "keeper": pictures.get(keepers[row["keeper"]]) if row["keeper"] else None,
                    "value": row["value"],
                }
                for row in chosen
            ],
        }
        for rule, count, chosen in rules
    ]


def telling(rows: list[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """Of pictures that one rule rejects those that tell most: where it measures, the worst and the nearly good.

    The nearly good come first. Else they are drawn by key.
    """
    if len(rows) > most and all(
        _number(row["value"]) is not None and _number(row["bound"]) is not None for row in rows
    ):
        off = {row["key"]: abs(float(row["value"]) - float(row["bound"])) for row in rows}
        order = sorted(rows, key=lambda row: (off[row["key"]], row["key"]))
        return order[: most - most // 2] + order[len(order) - most // 2 :]
    return sorted(rows, key=lambda row: uniform("report", row["key"]))[:most]


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def failure_rows(raw: Path) -> list[tuple[str, str, int, str]]:
    """(source, code, how many, the first of them) of what could not be collected."""
    failures = pd.read_parquet(raw / FAILURES)
    return [
        (source, code, len(rows), rows["path"].iloc[0]) for (source, code), rows in failures.groupby(["source", "code"])
    ]


def credit_rows(kept: pd.DataFrame) -> list[tuple[str, str, str, int]]:
    """(source, licence, attribution, pictures) of what is kept."""
    shown = kept[["source", "license", "attribution"]].fillna("not said")
    return [(*name, len(rows)) for name, rows in shown.groupby(["source", "license", "attribution"])]


def read_json(path: Path) -> Any:
    """The values in a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    run_stage(main)
