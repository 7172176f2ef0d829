"""Pictures for the page: small, and inside it."""

import base64
import io
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import pandas as pd
from PIL import Image

from stages.core.pairs import read_images, shards_below
from stages.core.pictures import decode

WHITE = (255, 255, 255)
Places = Mapping[str, tuple[str, int]]  # of keys in data/raw: shard and row


def data_url(image: Image.Image, side: int) -> str:
    """The picture, at most `side` px wide and high: small ones lossless, larger ones as JPEG."""
    buffer = io.BytesIO()
    small = image.convert("RGB")
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    if max(small.size) <= 96:
        small.save(buffer, "PNG", optimize=True)
        kind = "png"
    else:
        small.save(buffer, "JPEG", quality=85)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def raw_pictures(
    raw: Path, wanted: Iterable[tuple[str, int]], side: int, most_pixels: int = 2**26
) -> Mapping[tuple[str, int], str]:
    """The pictures at (shard, row) of data/raw as data URLs; those that don't decode are left out."""
    rows: dict[str, set[int]] = {}
    for shard, row in wanted:
        rows.setdefault(shard, set()).add(int(row))
    found = {}
    for shard in sorted(rows):
        numbers = sorted(rows[shard])
        for number, image in zip(numbers, read_images(raw / shard, numbers), strict=True):
            picture = decode(image["bytes"], WHITE, most_pixels)
            if picture.image is not None:
                found[shard, number] = data_url(picture.image, side)
    return found


def places_of(raw: Path, keys: Collection[str]) -> Places:
    """Where each of these keys is in data/raw: (shard, row)."""
    places: dict[str, tuple[str, int]] = {}
    for path in shards_below(raw) if keys else []:
        shard = path.relative_to(raw).as_posix()
        found = pd.read_parquet(path, columns=["key"])["key"]
        for row, key in found[found.isin(keys)].items():
            places.setdefault(key, (shard, int(row)))
    return places
