"""Whether a model draws copies: the training pictures nearest to each sample, with held-out pictures as the yardstick.

Distances are Euclidean between scaled features, over the square root of their number.
"""

import io
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from imagehash import phash
from PIL import Image
from scipy.spatial.distance import cdist

from stages.core.draws import uniform
from stages.core.pairs import read_rows, shards_below
from stages.evaluate.classical import Features
from stages.evaluate.distances import Scale
from stages.evaluate.extractors import BATCH, Extractor

Near = list[tuple[str, float]]  # keys of training pictures and their distances, nearest first

NEAREST = 3
SHARE = 0.05  # of held-out pictures that count as too close to a training picture


def pictures_of(
    processed: Path, split: str, keys: Collection[str] | None = None
) -> Iterator[tuple[str, list[str], Image.Image]]:
    """(key, captions, picture) of a split's finished pictures, in the order of the shards; variants are left out.

    keys: of those wanted; None: all.
    """
    for path in shards_below(processed):
        for row in read_rows([path], ["key", "variant", "split", "captions", "image"]):
            if row["split"] == split and row["variant"] == 0 and (keys is None or row["key"] in keys):
                yield row["key"], row["captions"] or [], Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB")


def chosen_keys(processed: Path, split: str, most: int | None) -> set[str]:
    """Keys of a split's pictures; if there are more than `most`, which ones is drawn by key."""
    keys = {
        row["key"]
        for row in read_rows(shards_below(processed), ["key", "variant", "split"])
        if row["split"] == split and row["variant"] == 0
    }
    return set(sorted(keys, key=lambda key: (uniform("evaluate", key), key))[:most])


def nearest(
    extractor: Extractor, scale: Scale, queries: Features, processed: Path, keys: Collection[str]
) -> list[Near]:
    """For each query the nearest training pictures as (key, distance), nearest first.

    queries: scaled, (Q, D). Training pictures are read some at a time: memory doesn't grow with them.
    """
    found: list[list[tuple[float, str]]] = [[] for _ in queries]
    waiting = pictures_of(processed, "train", keys)
    while batch := list(islice(waiting, BATCH)):
        features = scale.apply(extractor.read([picture for _, _, picture in batch]))
        distances = cdist(queries, features) / np.sqrt(features.shape[1])
        for mine, row in zip(found, distances.tolist(), strict=True):
            mine += [(distance, key) for distance, (key, _, _) in zip(row, batch, strict=True)]
            mine[:] = sorted(mine)[:NEAREST]
    return [[(key, distance) for distance, key in mine] for mine in found]


def told(drawn: Sequence[Image.Image], near: Sequence[Near], processed: Path) -> list[list[dict[str, Any]]]:
    """The same as rows, with the number of bits, of 64, by which perceptual hashes differ."""
    wanted = {key for row in near for key, _ in row}
    hashes = {key: phash(picture) for key, _, picture in pictures_of(processed, "train", wanted)}
    return [
        [
            {"key": key, "distance": round(distance, 6), "hash_bits": int(phash(picture) - hashes[key])}
            for key, distance in row
        ]
        for picture, row in zip(drawn, near, strict=True)
    ]


def threshold_of(held_out: Sequence[Near]) -> float | None:
    """The distance below which SHARE of the held-out pictures have a training picture; None if there are none."""
    distances = [row[0][1] for row in held_out if row]
    return float(np.quantile(distances, SHARE)) if distances else None
