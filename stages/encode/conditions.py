"""The pictures that a ControlNet follows, as tensors beside their picture's latents."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from stages.core.errors import StageError
from stages.encode.processed import Picture

COLUMN = "conditions"
TAKEN = ("mean", "std")


def has_conditions(shard: Path) -> bool:
    """Whether the pictures of a shard of data/processed have conditions."""
    return COLUMN in pq.read_schema(shard).names


def column_of(shard: Path) -> pa.ChunkedArray | None:
    """The column of a shard of data/processed, None if it has none."""
    return pq.read_table(shard, columns=[COLUMN]).column(COLUMN) if has_conditions(shard) else None


def tensors_of(pictures: Sequence[Picture], column: pa.ChunkedArray) -> dict[str, torch.Tensor]:
    """Each condition of some pictures of one size and shard, uint8: (N, 1, H, W) where all are grey, else (N, 3, H, W).

    Raises StageError if a picture lacks a condition that another has, or one is of another size than its picture.
    """
    rows = [{each["name"]: each["bytes"] for each in column[picture.row].as_py() or ()} for picture in pictures]
    tensors = {}
    for name in sorted(set().union(*rows)):
        if name in TAKEN:
            raise StageError("encode", f"a condition is named {name}, as the latents are", "give it another name")
        lacking = [picture.key for picture, row in zip(pictures, rows, strict=True) if name not in row]
        if lacking:
            raise StageError("encode", f"picture {lacking[0]} has no condition {name}", "give one to every picture")
        tensors[name] = _stacked(pictures, name, [row[name] for row in rows])
    return tensors


def _stacked(pictures: Sequence[Picture], name: str, files: Sequence[bytes]) -> torch.Tensor:
    singly = [_pixels(data) for data in files]
    for picture, pixels in zip(pictures, singly, strict=True):
        if pixels.shape[1:] != (picture.height, picture.width):
            sizes = f"{pixels.shape[2]} x {pixels.shape[1]} px, not {picture.width} x {picture.height}"
            raise StageError("encode", f"condition {name} of picture {picture.key} is {sizes}", "run preprocess again")
    stacked = torch.stack(singly)
    grey = bool((stacked == stacked[:, :1]).all())
    return stacked[:, :1].contiguous() if grey else stacked


def _pixels(data: bytes) -> torch.Tensor:
    """A PNG as (3, H, W) uint8."""
    return torch.from_numpy(np.array(Image.open(io.BytesIO(data)).convert("RGB"))).permute(2, 0, 1)
