"""report: one page to look at.

in    what the stages before left: counts, doors, curves, samples, figures, what the models say of themselves
out   reports/index.html  with every picture inside: no network, no server
"""

import json
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from stages.core.errors import StageError
from stages.core.files import replacing
from stages.core.stage import run_stage
from stages.report import data, finished, lineage, models, training
from stages.report.filling import fill
from stages.report.params import ReportParams
from stages.report.pictures import data_url, places_of

MOST_BYTES = 15_000_000
MOST_SAMPLES, MOST_GRIDS, MOST_PAIRS = 240, 6, 12


def main(
    params: ReportParams,
    raw: Path,
    clean: Path,
    processed: Path,
    base: Path,
    trained: Path,
    merged: Path,
    train: Path,
    samples: Path,
    grids: Path,
    evaluation: Path,
    collected: Path,
    captioned: Path,
    cleaned: Path,
    preprocessed: Path,
    encoded: Path,
    out: Path,
) -> None:
    """Gather, then fill the template. Raises StageError if the page would be too heavy to send around."""
    figures, nearest = read_json(evaluation / "figures.json"), read_json(evaluation / "nearest.json")
    names = models.order(figures["models"])
    folders = {name: {"base": base, "trained": trained}.get(name, merged / name) for name in names}
    kept = pd.read_parquet(clean / "manifest.parquet")
    rejected = pd.read_parquet(clean / "rejected.parquet").fillna({"keeper": ""})
    keepers = places_of(raw, set(rejected["keeper"]) - {""})
    collection, made, latents = read_json(collected), read_json(preprocessed), read_json(encoded)
    prompts, left = models.samples_of(samples, names, MOST_SAMPLES)
    shown = lineage.lineage(prompts, folders, samples, nearest, processed, kept, raw)
    page = fill(
        "page.html.jinja",
        title=params.title,
        funnel=data.funnel(collection, read_json(cleaned), made),
        models=names,
        verdict=models.verdict(figures),
        prompts=prompts,
        prompts_left=left,
        grids=grid_sheets(grids),
        cards=models.cards(figures, names),
        extractor=figures["extractor"]["name"],
        timesteps=training.timestep_chart(evaluation / "validation.csv", names),
        vae_psnr=latents["vae_psnr"],
        charts=training.curves(train),
        previews=training.previews(train),
        ratios=training.ratio_chart(evaluation / "merges.csv"),
        merges=training.merge_rows({name: read_json(merged / name / "merge.json") for name in names[2:]}),
        memorised=lineage.memorised(nearest, prompts, shown, MOST_PAIRS),
        threshold=nearest["threshold"],
        lineage=shown,
        caption_counts=data.caption_counts(collection, read_json(captioned)),
        kept=data.kept_examples(params, processed),
        rows_made=finished.rows_made(made),
        left_out=finished.left_out(made),
        buckets=finished.buckets(made),
        channels=finished.channels(made),
        boomerang=finished.boomerang(latents),
        captions=data.captions_of(kept),
        rejected=data.rejected_examples(params, raw, rejected, keepers),
        clusters=data.clusters(raw, rejected, keepers),
        failures=data.failure_rows(raw),
        credits=data.credit_rows(kept),
    )
    if (size := len(page.encode())) > MOST_BYTES:
        advice = "lower report.rejected_examples or report.kept_examples, or preview less often"
        raise StageError(str(out), f"would have {size / 1e6:.1f} MB, more than {MOST_BYTES / 1e6:.0f}", advice)
    with replacing(out) as temporary:
        temporary.write_text(page, encoding="utf-8")
    print(f"{out}: {size / 1e6:.1f} MB")


def grid_sheets(grids: Path) -> list[dict[str, Any]]:
    """The first of the grids, each with its sheet."""
    listed = read_json(grids / "grids.json")
    return [
        {
            **grid,
            "name": name,
            "x": grid["x"]["name"],
            "y": grid["y"]["name"],
            "picture": data_url(Image.open(grids / grid["file"]), 1400),
        }
        for name, grid in sorted(listed.items())[:MOST_GRIDS]
    ]


def read_json(path: Path) -> Any:
    """The values in a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    run_stage(main)
