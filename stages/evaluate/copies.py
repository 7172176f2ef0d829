"""Whether a model draws copies: the training pictures nearest to each sample, with held-out pictures as the yardstick.

They are looked for in the base's latents, whatever the extractor of the other figures: what a model draws has come out
of that VAE, and a copy that has isn't the picture any more (`docs/decisions/evaluation.md` has figures). Those of the
training pictures lie there already. Distances are Euclidean between pooled latents, scaled, over the square root of
their number.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from imagehash import phash
from PIL import Image
from scipy.spatial.distance import cdist

from stages.core.draws import uniform
from stages.core.finished import finished_pictures
from stages.core.latents import Latents
from stages.core.pairs import read_rows, shards_below
from stages.core.sizes import by_size
from stages.evaluate.classical import Features
from stages.evaluate.distances import Scale
from stages.evaluate.extractors import pooled

Near = list[tuple[str, float]]  # keys of training pictures and their distances, nearest first

NEAREST = 3
VARIANTS = 4  # of one picture may lie nearer than the next one
AT_ONCE = 256  # rows of data/latents
SHARE = 0.05  # of held-out pictures that count as too close to a training picture


def chosen_keys(processed: Path, split: str, most: int | None) -> set[str]:
    """Keys of a split's pictures; if there are more than `most`, which ones is drawn by key."""
    keys = {
        row["key"]
        for row in read_rows(shards_below(processed), ["key", "variant", "split"])
        if row["split"] == split and row["variant"] == 0
    }
    return drawn_keys(keys, most)


def drawn_keys(keys: Iterable[str], most: int | None) -> set[str]:
    """At most so many of these, each as likely; which ones depends on the keys alone. None: all."""
    return set(sorted(set(keys), key=lambda key: (uniform("evaluate", key), key))[:most])


def features_of(data: Latents, most: int) -> Features:
    """Pooled latents of the first rows by key, (N, D)."""
    count = min(most, len(data))
    parts = {row: part for rows, found in _batches(data, range(count)) for row, part in zip(rows, found, strict=True)}
    return np.array([parts[row] for row in range(count)])


def nearest(scale: Scale, queries: Features, training: Latents, most: int | None) -> list[Near]:
    """For each query the nearest training pictures as (key, distance), nearest first; variants of one count as it.

    queries: scaled pooled latents, (Q, D). most: training pictures to look at, drawn by key; None: all. They are read
    some at a time: memory doesn't grow with them.
    """
    keys = [key.rpartition("/")[0] for key in training.keys]
    chosen = drawn_keys(keys, most)
    found: list[dict[str, float]] = [{} for _ in queries]
    wanted = [
        row
        for row, key in enumerate(keys)
        if key in chosen and (row == 0 or training.keys[row - 1] != training.keys[row])
    ]
    for rows, features in _batches(training, wanted):
        distances = cdist(queries, scale.apply(features)) / np.sqrt(features.shape[1])
        first = np.argsort(distances, axis=1, kind="stable")[:, : NEAREST * VARIANTS]
        for mine, places, row in zip(found, first.tolist(), distances.tolist(), strict=True):
            for place in places:
                key = keys[rows[place]]
                mine[key] = min(row[place], mine.get(key, np.inf))
            for key in sorted(mine, key=lambda key: (mine[key], key))[NEAREST:]:
                del mine[key]
    return [sorted(mine.items(), key=lambda pair: (pair[1], pair[0])) for mine in found]


def _batches(data: Latents, rows: Sequence[int]) -> Iterator[tuple[list[int], Features]]:
    """Rows of one size, some at a time, and their pooled latents."""
    for group in by_size([data.sizes[row] for row in rows]):
        for start in range(0, len(group), AT_ONCE):
            some = [rows[place] for place in group[start : start + AT_ONCE]]
            yield some, pooled(data.read(some).mean)


def told(drawn: Sequence[Image.Image], near: Sequence[Near], processed: Path) -> list[list[dict[str, Any]]]:
    """The same as rows, with the number of bits, of 64, by which perceptual hashes differ."""
    wanted = {key for row in near for key, _ in row}
    hashes = {one.key: phash(one.picture) for one in finished_pictures(processed, wanted)}
    return [
        [{"key": key, "distance": round(distance, 6), "hash_bits": int(own - hashes[key])} for key, distance in row]
        for own, row in zip(map(phash, drawn), near, strict=True)
    ]


def threshold_of(held_out: Sequence[Near]) -> float | None:
    """The distance below which SHARE of the held-out pictures have a training picture; None if there are none."""
    distances = [row[0][1] for row in held_out if row]
    return float(np.quantile(distances, SHARE)) if distances else None
