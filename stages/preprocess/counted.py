"""What came of the pictures: how many, in which buckets, of which colours. Whole numbers, so order can't matter."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import sqrt
from typing import Any

from stages.preprocess.buckets import Size
from stages.preprocess.given import is_given
from stages.preprocess.params import PreprocessParams
from stages.preprocess.variants import FIRST_DRAWN, Variant

NAMES = ("rows", "too_small", "train", "validation")
Lack = tuple[str, str]  # a condition's name, and why it can't be used


@dataclass
class Counted:
    """names: rows; pictures of each split, that are too small, without_condition; drawn variants.

    lacking, first: pictures by what they lack, and the first of each. buckets: pictures of each size.
    colours: how often each of 256 values occurs in the rows of split train, red, green, then blue.
    """

    names: Counter[str] = field(default_factory=Counter)
    lacking: Counter[Lack] = field(default_factory=Counter)
    first: dict[Lack, str] = field(default_factory=dict)
    buckets: Counter[Size] = field(default_factory=Counter)
    colours: list[int] = field(default_factory=lambda: [0] * 768)

    def add(self, variant: Variant, split: str) -> None:
        """One row."""
        self.names["rows"] += 1
        if variant.number == 0:
            self.names[split] += 1
            self.buckets[variant.image.size] += 1
        self.names["drawn"] += variant.number >= FIRST_DRAWN
        if split == "train":
            self._colour(variant.image.histogram())

    def lack(self, reasons: Mapping[str, str], path: str) -> None:
        """A picture that is left out, for these reasons by condition. path: its source and its name there."""
        self.names["without_condition"] += 1
        for lack in reasons.items():
            self.lacking[lack] += 1
            self.first.setdefault(lack, path)

    def merge(self, other: "Counted") -> None:
        """Counts of the shard that comes next."""
        self.names += other.names
        self.lacking += other.lacking
        self.first = {**other.first, **self.first}
        self.buckets += other.buckets
        self._colour(other.colours)

    def _colour(self, counts: list[int]) -> None:
        self.colours = [old + new for old, new in zip(self.colours, counts, strict=True)]

    def figures(self, params: PreprocessParams) -> dict[str, Any]:
        """For reports/preprocess.json."""
        mean, deviation = mean_and_deviation(self.colours)
        found: dict[str, Any] = {**{name: self.names[name] for name in NAMES}, "mean": mean, "std": deviation}
        if params.augment.variants:
            found["variants"] = self.names["drawn"]
            found["variants_too_small"] = params.augment.variants * self.names["train"] - self.names["drawn"]
        if any(map(is_given, params.conditions)):
            found["without_condition"] = self.names["without_condition"]
            found["lacking"] = [
                {"condition": name, "reason": reason, "pictures": count, "first": self.first[name, reason]}
                for (name, reason), count in sorted(self.lacking.items())
            ]
        if params.fit == "bucket":
            found["buckets"] = {
                f"{width}x{height}": self.buckets[width, height] for width, height in sorted(self.buckets)
            }
        return found


def mean_and_deviation(counts: list[int]) -> tuple[list[float], list[float]]:
    """Of each channel, 0 to 1, to six decimals, every pixel counting the same; empty if there is none."""
    pixels = sum(counts[:256])
    if not pixels:
        return [], []
    means, deviations = [], []
    for first in (0, 256, 512):
        channel = counts[first : first + 256]
        total = sum(value * count for value, count in enumerate(channel))
        squares = sum(value**2 * count for value, count in enumerate(channel))
        means.append(round(total / pixels / 255, 6))
        deviations.append(round(sqrt(pixels * squares - total**2) / pixels / 255, 6))
    return means, deviations
