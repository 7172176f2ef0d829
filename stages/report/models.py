"""The models on the page: their figures with intervals, and what they drew."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from stages.report.pictures import data_url

FIGURES = {  # figure -> heading, what it says, which way is better (-1: lower, 1: higher, 0: neither)
    "validation_loss": ("Validation loss", "mean squared error of the denoiser on held-out pictures", -1),
    "kid": ("Kernel distance (KID)", "of its samples to held-out pictures; 0: alike", -1),
    "clip_score": ("CLIP score", "how well its samples fit their prompts", 1),
    "retrieval": ("Retrieval", "share of samples whose own prompt fits best, of all prompts", 1),
    "likeness": ("Likeness", "to the real pictures of that very caption, as a CLIP sees them; 1: the same", 1),
    "precision": ("Precision", "share of samples that lie among the held-out pictures", 1),
    "recall": ("Recall", "share of the held-out pictures that lie among its samples", 1),
    "diversity": ("Diversity", "how many different pictures its samples amount to", 0),
    "too_close": ("Too close to a training picture", "share of samples nearer than nearly all held-out pictures", -1),
}


VERDICT = ("validation_loss", "kid", "clip_score", "too_close")  # what stands at the top of the page


@dataclass(frozen=True)
class Bar:
    """A model's value of a figure; place, start and stop: of it and its interval on the scale, per cent."""

    model: str
    colour: int
    text: str
    interval: str
    place: float
    start: float
    stop: float
    best: bool


@dataclass(frozen=True)
class Card:
    """One figure of all models on one scale; yardstick: what held-out pictures have, and where, per cent."""

    heading: str
    means: str
    better: str
    bars: Sequence[Bar]
    yardstick: tuple[str, float] | None


def order(names: Iterable[str]) -> list[str]:
    """base, trained, then the merges by name."""
    return sorted(names, key=lambda name: (name != "base", name != "trained", name))


def cards(figures: Mapping[str, Any], models: Sequence[str]) -> list[Card]:
    """A card a figure that is known of some model."""
    made = []
    for name, (heading, means, sign) in FIGURES.items():
        values = {model: figures["models"][model][name] for model in models if name in figures["models"][model]}
        if not values:
            continue
        held_out = figures["held_out"].get(name)
        ends = [v for value in values.values() for v in value.values() if v is not None]
        ends += [held_out] if held_out is not None else []
        low = min(0.0, *ends)
        span = (max(ends) - low) or 1.0

        def place(value: float, low: float = low, span: float = span) -> float:
            return round(100 * (value - low) / span, 1)

        best = sign * max(sign * value["value"] for value in values.values())
        bars = [
            Bar(
                model,
                models.index(model),
                _short(value["value"]),
                f"{_short(value['low'])} to {_short(value['high'])}" if value["low"] is not None else "",
                place(value["value"]),
                place(value["value"] if value["low"] is None else value["low"]),
                place(value["value"] if value["high"] is None else value["high"]),
                sign != 0 and value["value"] == best,
            )
            for model, value in values.items()
        ]
        better = {-1: "lower is better", 1: "higher is better", 0: ""}[sign]
        made.append(
            Card(heading, means, better, bars, None if held_out is None else (_short(held_out), place(held_out)))
        )
    return made


def verdict(figures: Mapping[str, Any]) -> list[tuple[str, str, str, str, str]]:
    """(heading, base's value, trained's, word, real pictures' or nothing) of what training changed.

    better, worse: the intervals don't meet. as real pictures: what those have lies within trained's interval.
    """
    found = []
    for name in VERDICT:
        heading, _, sign = FIGURES[name]
        base, trained = (figures["models"].get(model, {}).get(name) for model in ("base", "trained"))
        if base and trained and None not in (base["low"], trained["low"]):
            real = figures["held_out"].get(name)
            gain = sign * (trained["value"] - base["value"])
            apart = trained["low"] > base["high"] or trained["high"] < base["low"]
            word = ("better" if gain > 0 else "worse") if apart else "no clear difference"
            if real is not None and trained["low"] <= real <= trained["high"]:
                word = "as real pictures"
            told = "" if real is None else _short(real)
            found.append((heading, _short(base["value"]), _short(trained["value"]), word, told))
    return found


def _short(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def samples_of(samples: Path, models: Sequence[str], most: int) -> tuple[list[dict[str, Any]], int]:
    """Rows of the comparison, a prompt each: (prompt, for each model its samples); and how many were left out.

    A sample is what samples.json says of it, with `picture` and `model`.
    """
    listed = {model: json.loads((samples / model / "samples.json").read_text(encoding="utf-8")) for model in models}
    prompts = list(dict.fromkeys(row["prompt"] for found in listed.values() for row in found["pictures"]))
    rows: list[dict[str, Any]] = []
    left = 0
    for prompt in prompts:
        found = {model: [row for row in listed[model]["pictures"] if row["prompt"] == prompt] for model in models}
        count = sum(map(len, found.values()))
        if rows and sum(row["count"] for row in rows) + count > most:
            left += count
            continue
        cells = [
            (
                model,
                [
                    {**row, "model": model, "picture": data_url(Image.open(samples / model / row["file"]), 256)}
                    for row in found[model]
                ],
            )
            for model in models
        ]
        rows.append({"prompt": prompt, "count": count, "cells": cells})
    return rows, left
