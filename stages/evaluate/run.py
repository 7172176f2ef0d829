"""evaluate: compare the models by figures.

in    the models, what they drew, held-out pictures and their latents
out   reports/evaluation.json  a row a model
      reports/validation.csv   the validation loss of each model by timestep
      reports/merges.csv       the validation loss of each recipe by its ratio
"""

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from stages.core.errors import StageError
from stages.core.families.family import Text, open_encoders, tokenizer_of
from stages.core.families.known import empty_is_zero, family_of
from stages.core.families.live import Live
from stages.core.files import folder_digest, replacing, write_json
from stages.core.gpus import one_gpu
from stages.core.latents import Latents
from stages.core.models import best_device
from stages.core.objective import open_denoiser, validation_curve
from stages.core.pairs import read_rows, shards_below
from stages.core.recipes import model_folders
from stages.core.stage import run_stage
from stages.evaluate.features import EXTRACTOR, features_of, kernel_distance
from stages.evaluate.params import EvaluateParams


def main(
    params: EvaluateParams,
    base: Path,
    trained: Path,
    merged: Path,
    samples: Path,
    processed: Path,
    latents: Path,
    out: Path,
    curves: Path,
    merges: Path,
) -> None:
    """One row a model: how well it denoises held-out pictures, how its own resemble them."""
    models = model_folders(base, trained, merged)
    refuse_strays(models, merged, samples)
    held_out = Latents(latents, "validation")
    rows = read_rows(shards_below(processed), ["image", "split", "variant"])
    real = np.array(
        [
            features_of(Image.open(io.BytesIO(row["image"]["bytes"])))
            for row in rows
            if row["split"] == "validation" and row["variant"] == 0
        ]
    )
    table, points = {}, []
    for name, folder in models.items():
        curve = losses_of(params, folder, base, held_out)
        files = sorted(path for path in (samples / name).glob("*-*.png"))
        drawn = np.array([features_of(Image.open(path)) for path in files])
        table[name] = {"validation_loss": round(sum(curve) / len(curve), 5)}
        if min(len(real), len(drawn)) >= 2:
            table[name]["kernel_distance"] = round(kernel_distance(real, drawn), 5)
        points += [{"model": name, "bin": part, "loss": round(loss, 6)} for part, loss in enumerate(curve)]
    write_json(out, table)
    with replacing(curves) as temporary:
        pd.DataFrame(points).to_csv(temporary, index=False, lineterminator="\n")
    losses = {name: table[name]["validation_loss"] for name in models if name not in ("base", "trained")}
    with replacing(merges) as temporary:
        by_ratio(merged, losses).to_csv(temporary, index=False, lineterminator="\n")
    for name, figures in table.items():
        print(f"{name}: " + ", ".join(f"{key} {value}" for key, value in figures.items()) + f" ({EXTRACTOR})")


def by_ratio(merged: Path, losses: dict[str, float]) -> pd.DataFrame:
    """A row a recipe, in the order of their ratios: what a sweep's plot shows."""
    rows = []
    for name, loss in losses.items():
        recipe = json.loads((merged / name / "merge.json").read_text(encoding="utf-8"))["merge"]["recipe"]
        rows.append({"recipe": name, "method": recipe["method"], "ratio": recipe["ratio"], "loss": loss})
    return pd.DataFrame(rows).sort_values(["ratio", "recipe"])


def refuse_strays(models: dict[str, Path], *folders: Path) -> None:
    """DVC leaves the outputs of a recipe that was taken out; with them, the same params would be another input."""
    strays = [
        path for folder in folders for path in sorted(folder.iterdir()) if path.is_dir() and path.name not in models
    ]
    if strays:
        named = ", ".join(path.as_posix() for path in strays)
        raise StageError("evaluate", f"{named} belong to no recipe in params.yaml", "remove them; DVC's cache has them")


def losses_of(params: EvaluateParams, model: Path, base: Path, held_out: Latents) -> list[float]:
    """The model's validation loss in each timestep bin, always on the same pictures and noise."""
    denoiser = open_denoiser(model)
    denoiser.network.to(best_device())
    return validation_curve(
        denoiser, held_out, params.pictures, params.bins, params.seed, own_texts(model, base, held_out)
    )


def own_texts(model: Path, base: Path, held_out: Latents) -> Callable[[Sequence[int]], Text] | None:
    """Captions as the model's own text encoders read them; None if they are the base's, whose answers are stored."""
    family = family_of(model)
    parts = [part for name in family.encoders for part in (name, tokenizer_of(name)) if (model / name).is_dir()]
    if all(folder_digest(model / part) == folder_digest(base / part) for part in parts):
        return None
    encoders, device = open_encoders(family, model), best_device()
    for encoder in encoders:
        encoder.model.to(device)
    live = Live(family, encoders, held_out.caption_texts(), empty_is_zero(model))

    def read(numbers: Sequence[int]) -> Text:
        return live.read({name: value.to(device) for name, value in live.prepare(numbers).items()})

    return read


if __name__ == "__main__":
    run_stage(main, one_gpu)
