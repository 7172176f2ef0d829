"""What came of the pictures: how many, in which buckets, of which colours. Whole numbers, so order can't matter."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import sqrt
from typing import Any

from stages.preprocess.buckets import Size
from stages.preprocess.params import PreprocessParams
from stages.preprocess.variants import FIRST_DRAWN, Variant

NAMES = ("rows", "too_small", "train", "validation")


@dataclass
class Counted:
    """names: rows; pictures that are too small; pictures of each split; variants that would have grown too much.

    buckets: pictures of each size. colours: how often each of 256 values occurs in the rows of split train, red,
    green, then blue.
    """

    names: Counter[str] = field(default_factory=Counter)
    buckets: Counter[Size] = field(default_factory=Counter)
    colours: list[int] = field(default_factory=lambda: [0] * 768)

    def add(self, params: PreprocessParams, shown: Sequence[Variant], split: str) -> None:
        """One picture and its variants; none if it was too small."""
        if not shown:
            self.names["too_small"] += 1
            return
        self.names.update({"rows": len(shown), split: 1})
        self.buckets[shown[0].image.size] += 1
        if split == "train":
            made = sum(variant.number >= FIRST_DRAWN for variant in shown)
            self.names["variants_too_small"] += params.augment.variants - made
            for variant in shown:
                self._colour(variant.image.histogram())

    def merge(self, other: "Counted") -> None:
        """Another shard's counts."""
        self.names += other.names
        self.buckets += other.buckets
        self._colour(other.colours)

    def _colour(self, counts: list[int]) -> None:
        self.colours = [old + new for old, new in zip(self.colours, counts, strict=True)]

    def figures(self, params: PreprocessParams) -> dict[str, Any]:
        """For reports/preprocess.json."""
        names = (*NAMES, "variants_too_small") if params.augment.variants else NAMES
        mean, deviation = mean_and_deviation(self.colours)
        found = {**{name: self.names[name] for name in names}, "mean": mean, "std": deviation}
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
