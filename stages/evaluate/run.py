"""evaluate: compare the models by figures.

in    the models, what they drew, held-out pictures and their latents
out   reports/evaluation.json  a row a model
      reports/validation.csv   the validation loss of each model by timestep
"""

import io
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from stages.core.errors import StageError
from stages.core.files import replacing, write_json
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
        curve = losses_of(params, folder, held_out)
        files = sorted(path for path in (samples / name).glob("*-*.png"))
        drawn = np.array([features_of(Image.open(path)) for path in files])
        table[name] = {"validation_loss": round(sum(curve) / len(curve), 5)}
        if min(len(real), len(drawn)) >= 2:
            table[name]["kernel_distance"] = round(kernel_distance(real, drawn), 5)
        points += [{"model": name, "bin": part, "loss": round(loss, 6)} for part, loss in enumerate(curve)]
    write_json(out, table)
    with replacing(curves) as temporary:
        pd.DataFrame(points).to_csv(temporary, index=False, lineterminator="\n")
    for name, figures in table.items():
        print(f"{name}: " + ", ".join(f"{key} {value}" for key, value in figures.items()) + f" ({EXTRACTOR})")


def refuse_strays(models: dict[str, Path], *folders: Path) -> None:
    """DVC leaves the outputs of a recipe that was taken out; with them, the same params would be another input."""
    strays = [
        path for folder in folders for path in sorted(folder.iterdir()) if path.is_dir() and path.name not in models
    ]
    if strays:
        named = ", ".join(path.as_posix() for path in strays)
        raise StageError("evaluate", f"{named} belong to no recipe in params.yaml", "remove them; DVC's cache has them")


def losses_of(params: EvaluateParams, model: Path, held_out: Latents) -> list[float]:
    """The model's validation loss in each timestep bin, always on the same pictures and noise."""
    denoiser = open_denoiser(model)
    denoiser.network.to(best_device())
    return validation_curve(denoiser, held_out, params.pictures, params.bins, params.seed)


if __name__ == "__main__":
    run_stage(main)
