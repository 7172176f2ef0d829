"""From a sample to its model, its settings and the training pictures nearest to it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors import safe_open

from stages.core.errors import StageError
from stages.core.pairs import read_rows
from stages.report.data import thumbnails

SETTINGS = ("seed", "steps", "guidance", "scheduler", "negative", "mode", "strength")


def lineage(
    prompts: Sequence[Mapping[str, Any]],
    folders: Mapping[str, Path],
    samples: Path,
    nearest: Mapping[str, Any],
    processed: Path,
    kept: pd.DataFrame,
    raw: Path,
) -> dict[str, Any]:
    """What the page knows of each sample that it shows.

    Returns samples (by model/file), models (by name) and training (pictures by key).
    """
    near = {f"{model}/{row['file']}": row for model, rows in nearest["models"].items() for row in rows}
    shown = {f"{model}/{sample['file']}": sample for row in prompts for model, cell in row["cells"] for sample in cell}
    found = {name: near.get(name, {"near": [], "too_close": False}) for name in shown}
    keys = sorted({place["key"] for row in found.values() for place in row["near"]})
    return {
        "samples": {name: _sample(sample, found[name]) for name, sample in shown.items()},
        "models": {name: _model(name, folder, samples) for name, folder in folders.items()},
        "training": training_pictures(keys, processed, kept, raw),
    }


def _sample(sample: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    settings = [(name, str(sample[name])) for name in SETTINGS if sample.get(name) not in (None, "")]
    return {
        "prompt": sample["prompt"],
        "model": sample["model"],
        "settings": [*settings, ("size", f"{sample['width']} × {sample['height']} px")],
        "too_close": found["too_close"],
        "near": [
            {"key": row["key"], "says": f"distance {row['distance']:.3g}, {row['hash_bits']} of 64 hash bits differ"}
            for row in found["near"]
        ],
    }


def _model(name: str, folder: Path, samples: Path) -> dict[str, Any]:
    about = provenance(folder)
    weights = json.loads((samples / name / "samples.json").read_text(encoding="utf-8"))["weights_sha256"]
    return {"facts": facts(name, about, weights), "about": json.dumps(about, indent=1, sort_keys=True) if about else ""}


def provenance(folder: Path) -> dict[str, Any]:
    """What a model's denoiser says of itself: the JSON in its weights' metadata. Empty where it says nothing."""
    for part in ("unet", "transformer"):
        for path in sorted((folder / part).glob("*.safetensors")):
            with safe_open(path, "np") as file:
                said = (file.metadata() or {}).get("darkroom")
            return dict(json.loads(said)) if said else {}
    raise StageError(folder.as_posix(), "has no weights of a denoiser", "make the model again")


def facts(name: str, about: Mapping[str, Any], weights: str) -> list[tuple[str, str]]:
    """(what, value) that tell a reader what a model is. about: as `provenance` gives it. weights: sha256, hex."""
    rows = [("name", name), ("weights", f"sha256 {weights[:16]}…")]
    if "merge" in about:
        recipe = about["merge"]["recipe"]
        return [*rows, ("merged by", str(recipe["method"])), ("of", ", ".join(about["merge"]["inputs"]))]
    if not about:
        return [*rows, ("trained", "elsewhere: its file doesn't say how")]
    params = about["params"]
    batch = params["batch_size"] * params["accumulation"]
    rows += [
        ("trained by", f"{about['method']}, {params['steps']:,} steps of {batch}"),
        ("optimiser", f"{params['optimizer']}, rate {params['learning_rate']:g}, seed {params['seed']}"),
    ]
    if "data_sha256" in about:
        rows.append(("on data", f"sha256 {about['data_sha256'][:16]}…"))
    return rows + [(f"from {parent}", f"sha256 {digest[:16]}…") for parent, digest in about.get("parents", {}).items()]


def training_pictures(keys: Sequence[str], processed: Path, kept: pd.DataFrame, raw: Path) -> dict[str, dict[str, str]]:
    """By key: the picture, its caption, where it comes from, licence and attribution."""
    pictures = thumbnails(processed, keys)
    rows = kept[kept["key"].isin(keys)].sort_values("key").fillna("")
    urls = _urls(raw, rows)
    return {
        row["key"]: {
            "picture": pictures[row["key"]][0],
            "caption": pictures[row["key"]][1],
            "path": urls.get(row["key"]) or row["source"],
            "license": row["license"],
            "attribution": row["attribution"],
        }
        for row in rows.to_dict("records")
        if row["key"] in pictures
    }


def _urls(raw: Path, rows: pd.DataFrame) -> dict[str, str]:
    """Where each picture was found: its URL, or its path within its source."""
    found: dict[str, str] = {}
    for shard, wanted in rows.groupby("shard"):
        keys = set(wanted["key"])
        for row in read_rows([raw / str(shard)], ["key", "url", "source", "image.path"]):
            if row["key"] in keys:
                found.setdefault(row["key"], row["url"] or f"{row['source']}: {row['image']['path']}")
    return found


def memorised(
    nearest: Mapping[str, Any], prompts: Sequence[Mapping[str, Any]], shown: Mapping[str, Any], most: int
) -> list[dict[str, Any]]:
    """The samples on the page that lie nearest to a training picture, nearest first; the base saw none of them."""
    pictures = {
        f"{model}/{sample['file']}": sample["picture"]
        for row in prompts
        for model, cell in row["cells"]
        for sample in cell
    }
    pairs = [
        {
            "model": model,
            "sample": f"{model}/{row['file']}",
            "too_close": row["too_close"],
            "distance": row["near"][0]["distance"],
            "picture": pictures[f"{model}/{row['file']}"],
            "training": shown["training"][row["near"][0]["key"]]["picture"],
        }
        for model, rows in nearest["models"].items()
        if model != "base"
        for row in rows
        if row["near"] and f"{model}/{row['file']}" in pictures and row["near"][0]["key"] in shown["training"]
    ]
    return sorted(pairs, key=lambda pair: (pair["distance"], pair["sample"]))[:most]
