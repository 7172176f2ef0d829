"""Pictures of data/processed by their keys, as training sees them."""

import io
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from stages.core.pairs import read_rows, shards_below


@dataclass(frozen=True)
class Finished:
    """A finished picture, RGB, with its captions."""

    key: str
    captions: list[str]
    picture: Image.Image


def finished_pictures(processed: Path, keys: Collection[str]) -> Iterator[Finished]:
    """Those with one of these keys, in the order of the shards; variants are left out.

    Of a shard without any of them only the keys are read, and nothing is decoded that isn't wanted.
    """
    for path in shards_below(processed):
        if any(row["key"] in keys for row in read_rows([path], ["key"])):
            for row in read_rows([path], ["key", "variant", "captions", "image"]):
                if row["key"] in keys and row["variant"] == 0:
                    picture = Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB")
                    yield Finished(row["key"], row["captions"] or [], picture)
