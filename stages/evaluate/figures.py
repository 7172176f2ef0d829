"""A model's figures, each with its interval, and what real held-out pictures have: the yardstick."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from stages.core.errors import StageError
from stages.core.finished import finished_pictures
from stages.core.pairs import read_rows, shards_below
from stages.core.vision import Clip, identity_of
from stages.evaluate import matching
from stages.evaluate.classical import Features
from stages.evaluate.copies import SHARE, Near, chosen_keys
from stages.evaluate.distances import (
    KernelDistance,
    Scale,
    Weights,
    inside,
    interval,
    share_interval,
    vendi,
    weighted_mean,
)
from stages.evaluate.extractors import Extractor, read_all
from stages.evaluate.params import EvaluateParams

DIGITS = 4  # of a figure, significant
SHARES = ("retrieval", "precision", "recall", "too_close")


@dataclass(frozen=True)
class Sample:
    """What a model drew, and what it was asked for."""

    file: str
    prompt: str
    picture: Image.Image


@dataclass(frozen=True)
class Figure:
    """low, high: the 95% interval, where there is one."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Words:
    """A CLIP, what stands for it, each prompt's vector, and the real pictures of prompts that are captions."""

    clip: Clip
    identity: dict[str, str]
    prompts: Mapping[str, matching.Vector]
    real: Mapping[str, Features]


def read_samples(folder: Path) -> list[Sample]:
    """A model's samples, as its samples.json lists them."""
    listed = json.loads((folder / "samples.json").read_text(encoding="utf-8"))["pictures"]
    return [Sample(row["file"], row["prompt"], Image.open(folder / row["file"]).convert("RGB")) for row in listed]


def real_features(params: EvaluateParams, extractor: Extractor, processed: Path) -> tuple[Scale, Features]:
    """Held-out pictures' features, scaled, and the scale. Raises StageError if there are too few to measure by."""
    keys = chosen_keys(processed, "validation", params.pictures)
    if len(keys) < 2:
        raise StageError("evaluate", f"has {len(keys)} held-out pictures", "raise clean.validation_share or _count")
    found = read_all(extractor, (one.picture for one in finished_pictures(processed, keys)))
    scale = Scale(found, extractor.kinds)
    return scale, scale.apply(found)


def open_words(params: EvaluateParams, folder: str, prompts: Sequence[str], processed: Path) -> Words:
    """The CLIP in a folder, with what it reads and sees beside the samples. Raises StageError if it can't be opened."""
    clip = Clip("evaluate.clip", folder)
    asked = set(prompts)
    named: dict[str, set[str]] = {"train": set(), "validation": set()}
    for row in read_rows(shards_below(processed), ["key", "split", "captions"]):
        if row["split"] in named and asked & set(row["captions"] or []):
            named[row["split"]].add(row["key"])
    pairs = [
        (caption, one.picture)
        for keys in named.values()
        for one in finished_pictures(processed, keys)
        for caption in sorted(asked & set(one.captions))
    ]
    seen = matching.seen(clip, [picture for _, picture in pairs])
    owners = np.array([caption for caption, _ in pairs])
    real = {caption: seen[owners == caption] for caption in sorted({caption for caption, _ in pairs})}
    identity = {"name": params.clip, "sha256": identity_of(folder)}
    return Words(clip, identity, matching.read(clip, prompts), real)


def figures_of(
    params: EvaluateParams,
    real: Features,
    drawn: Features,
    samples: Sequence[Sample],
    losses: torch.Tensor,
    near: Sequence[Near],
    threshold: float | None,
    words: Words | None,
) -> dict[str, Figure]:
    """All figures of one model. real, drawn: scaled features. losses: (bins, B). near: of each sample."""
    values: dict[str, Weights] = {"validation_loss": losses.mean(dim=0).numpy()}
    figures = {}
    if len(drawn) >= 2:
        distance = KernelDistance(real, drawn)
        found = interval(distance, len(real), len(drawn), seed=params.seed, name="kid")
        figures["kid"] = _figure(distance(), found)
        figures["diversity"] = _figure(vendi(drawn))
    if words and samples:
        seen = matching.seen(words.clip, [sample.picture for sample in samples])
        prompts = [sample.prompt for sample in samples]
        values["clip_score"] = matching.clip_scores(seen, prompts, words.prompts)
        values["retrieval"] = matching.retrieved(seen, prompts, words.prompts)
        values["likeness"] = matching.likeness(seen, prompts, words.real)
    if min(len(drawn), len(real)) > params.neighbours:
        values["precision"] = inside(drawn, real, params.neighbours)
        values["recall"] = inside(real, drawn, params.neighbours)
    if threshold is not None:
        values["too_close"] = np.array([float(is_close(row, threshold)) for row in near])
    for name, each in values.items():
        if len(each):
            average = partial(weighted_mean, each)
            found = (
                share_interval(each) if name in SHARES else interval(average, len(each), seed=params.seed, name=name)
            )
            figures[name] = _figure(float(each.mean()), found)
    return figures


def is_close(near: Near, threshold: float | None) -> bool:
    """Whether a sample is nearer to a training picture than nearly all held-out pictures are."""
    return bool(near) and threshold is not None and near[0][1] < threshold


def yardstick(
    params: EvaluateParams,
    extractor: Extractor,
    scale: Scale,
    real: Features,
    count: int,
    processed: Path,
    words: Words | None,
) -> dict[str, float]:
    """What real pictures have of the figures: the best to be had.

    As many training pictures as a model's samples (`count`); for clip_score and retrieval those whose caption is a
    prompt.
    """
    keys = chosen_keys(processed, "train", count)
    found = scale.apply(read_all(extractor, (one.picture for one in finished_pictures(processed, keys))))
    figures = {"too_close": SHARE}
    if len(found) >= 2:
        figures |= {"kid": KernelDistance(real, found)(), "diversity": vendi(found)}
    if min(len(found), len(real)) > params.neighbours:
        figures["precision"] = float(inside(found, real, params.neighbours).mean())
        figures["recall"] = float(inside(real, found, params.neighbours).mean())
    if words and words.real:
        seen = np.concatenate(list(words.real.values()))
        prompts = [prompt for prompt, vectors in words.real.items() for _ in vectors]
        figures["clip_score"] = float(matching.clip_scores(seen, prompts, words.prompts).mean())
        figures["retrieval"] = float(matching.retrieved(seen, prompts, words.prompts).mean())
    return {name: _rounded(value) for name, value in figures.items()}


def _figure(value: float, found: tuple[float, float] | None = None) -> Figure:
    return Figure(_rounded(value), *(map(_rounded, found) if found else ()))


def _rounded(value: float) -> float:
    """To DIGITS significant digits; what is nearly nothing is 0."""
    return float(f"{value:.{DIGITS}g}") if abs(value) > 1e-9 else 0.0
