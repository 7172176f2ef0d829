"""evaluate: compare the models by figures.

in    the models, what they drew, finished pictures and latents, perhaps models that look at pictures
out   reports/evaluation.json  a row a model: the figures to compare experiments by
      reports/evaluation       figures.json: all of them with intervals, and what real pictures have
                               validation.csv: the validation loss of each model by timestep
                               merges.csv: the validation loss of each recipe by its ratio
                               nearest.json: the training pictures nearest to each sample
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from stages.core.errors import StageError
from stages.core.families.family import Text, open_encoders, tokenizer_of
from stages.core.families.known import empty_is_zero, family_of
from stages.core.families.live import Live
from stages.core.files import folder_digest, replacing, write_json
from stages.core.gpus import one_gpu
from stages.core.latents import Latents
from stages.core.models import best_device
from stages.core.objective import open_denoiser, validation_losses
from stages.core.recipes import model_folders
from stages.core.stage import run_stage
from stages.evaluate.copies import Near, features_of, nearest, threshold_of, told
from stages.evaluate.distances import Scale
from stages.evaluate.extractors import Autoencoder, open_extractor, read_all
from stages.evaluate.figures import (
    Figure,
    Sample,
    figures_of,
    is_close,
    open_words,
    read_samples,
    real_features,
    yardstick,
)
from stages.evaluate.params import EvaluateParams

# What evaluation.json tells of each model, by names so short that `dvc exp show --only-changed` fits a terminal.
HEADLINES = {"validation_loss": "loss", "kid": "kid", "clip_score": "clip", "too_close": "copies"}


def main(
    params: EvaluateParams,
    base: Path,
    trained: Path,
    merged: Path,
    samples: Path,
    processed: Path,
    latents: Path,
    imported: Path,
    shipped: Path,
    out: Path,
    details: Path,
) -> None:
    """One row a model: how well it denoises held-out pictures; how its own resemble real ones, fit prompts, are new."""
    models = model_folders(base, trained, merged)
    refuse_strays(models, merged, samples)
    drawn = {name: read_samples(samples / name) for name in models}
    extractor = open_extractor(params, base, imported, shipped)
    scale, real = real_features(params, extractor, processed)
    features = {
        name: scale.apply(read_all(extractor, (sample.picture for sample in found))) for name, found in drawn.items()
    }
    held_out = Latents(latents, "validation")
    near, threshold = copies_of(params, base, latents, held_out, drawn)
    prompts = list(dict.fromkeys(sample.prompt for found in drawn.values() for sample in found))
    folder = params.folder_of(params.clip, imported, shipped, "evaluate.clip") if params.clip else None
    words = open_words(params, folder, prompts, processed) if folder else None

    everything = [sample.picture for found in drawn.values() for sample in found]
    rows = iter(told(everything, [row for found in near.values() for row in found], processed))
    curves, figures, copies = [], dict[str, dict[str, Figure]](), dict[str, list[dict[str, Any]]]()
    for name, model in models.items():
        losses = losses_of(params, model, base, held_out)
        figures[name] = figures_of(params, real, features[name], drawn[name], losses, near[name], threshold, words)
        copies[name] = [
            {"file": sample.file, "too_close": is_close(row, threshold), "near": next(rows)}
            for sample, row in zip(drawn[name], near[name], strict=True)
        ]
        curve = losses.mean(dim=1).tolist()
        curves += [{"model": name, "bin": part, "loss": round(loss, 6)} for part, loss in enumerate(curve)]
    count = max(len(found) for found in drawn.values())
    table = {
        name: {short: row[figure].value for figure, short in HEADLINES.items() if figure in row}
        for name, row in figures.items()
    }
    with replacing(details) as temporary:
        write_json(
            temporary / "figures.json",
            {
                "extractor": dict(extractor.identity),
                "text": words.identity if words else None,
                "held_out": yardstick(params, extractor, scale, real, count, processed, words),
                "models": {
                    name: {figure: asdict(found) for figure, found in row.items()} for name, row in figures.items()
                },
            },
        )
        write_json(temporary / "nearest.json", {"threshold": threshold, "models": copies})
        write_csv(pd.DataFrame(curves), temporary / "validation.csv")
        losses_by = {name: row["loss"] for name, row in table.items() if name not in ("base", "trained")}
        write_csv(by_ratio(merged, losses_by), temporary / "merges.csv")
    write_json(out, table)
    for name, row in figures.items():
        print(f"{name}: " + ", ".join(f"{figure.replace('_', ' ')} {found.value:g}" for figure, found in row.items()))


def copies_of(
    params: EvaluateParams, base: Path, latents: Path, held_out: Latents, drawn: Mapping[str, Sequence[Sample]]
) -> tuple[dict[str, list[Near]], float | None]:
    """For each model's samples the nearest training pictures, and the distance that counts as too close."""
    vae = Autoencoder(base)
    real = features_of(held_out, params.pictures)
    scale = Scale(real, vae.kinds)
    queries = [vae.as_they_are(sample.picture for sample in found) for found in drawn.values()]
    training = Latents(latents, "train", roles=("train",))
    near = nearest(scale, scale.apply(np.concatenate([real, *queries])), training, params.training_pictures)
    ends = np.cumsum([len(real), *(len(found) for found in drawn.values())]).tolist()
    by_model = {name: near[start:stop] for name, start, stop in zip(drawn, ends, ends[1:], strict=False)}
    return by_model, threshold_of(near[: len(real)])


def by_ratio(merged: Path, losses: dict[str, float]) -> pd.DataFrame:
    """A row a recipe, in the order of their ratios: what a sweep's plot shows."""
    columns = ["recipe", "method", "ratio", "loss"]
    rows = []
    for name, loss in losses.items():
        recipe = json.loads((merged / name / "merge.json").read_text(encoding="utf-8"))["merge"]["recipe"]
        rows.append({"recipe": name, "method": recipe["method"], "ratio": recipe["ratio"], "loss": loss})
    return pd.DataFrame(rows, columns=columns).sort_values(["ratio", "recipe"])


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """The same bytes on every system."""
    table.to_csv(path, index=False, lineterminator="\n")


def refuse_strays(models: dict[str, Path], *folders: Path) -> None:
    """DVC leaves the outputs of a recipe that was taken out; with them, the same params would be another input."""
    strays = [
        path for folder in folders for path in sorted(folder.iterdir()) if path.is_dir() and path.name not in models
    ]
    if strays:
        named = ", ".join(path.as_posix() for path in strays)
        raise StageError("evaluate", f"{named} belong to no recipe in params.yaml", "remove them; DVC's cache has them")


def losses_of(params: EvaluateParams, model: Path, base: Path, held_out: Latents) -> torch.Tensor:
    """The model's validation loss by timestep bin and picture, always on the same pictures and noise."""
    denoiser = open_denoiser(model)
    denoiser.network.to(best_device())
    return validation_losses(
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
