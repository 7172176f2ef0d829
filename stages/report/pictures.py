"""Pictures for the page: small, and inside it."""

import base64
import io
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd
from PIL import Image

from stages.core.pairs import read_images, shards_below
from stages.core.pictures import decode

WHITE = (255, 255, 255)


def data_url(image: Image.Image, side: int = 192) -> str:
    """The picture, at most `side` px wide and high: small ones lossless, larger ones as JPEG.

    Pixels of a miniature become squares of several, which browsers then leave sharp.
    """
    buffer = io.BytesIO()
    small = image.convert("RGB")
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    if (times := 96 // max(small.size)) > 1:
        small = small.resize((small.width * times, small.height * times), Image.Resampling.NEAREST)
    if max(small.size) <= 96:
        small.save(buffer, "PNG", optimize=True)
        kind = "png"
    else:
        small.save(buffer, "JPEG", quality=85)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def raw_pictures(
    raw: Path, wanted: Iterable[tuple[str, int]], most_pixels: int = 2**26
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
                found[shard, number] = data_url(picture.image, 96)
    return found


def places_of(raw: Path) -> dict[str, tuple[str, int]]:
    """Where each key of data/raw is: (shard, row)."""
    places: dict[str, tuple[str, int]] = {}
    for path in shards_below(raw):
        shard = path.relative_to(raw).as_posix()
        keys = pd.read_parquet(path, columns=["key"])["key"]
        for row, key in enumerate(keys):
            places.setdefault(key, (shard, row))
    return places
