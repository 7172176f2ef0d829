"""data/latents: what training would compute again and again, computed once.

    index.parquet           a row a key and variant: where its latents and captions are
    pictures/<n>.safetensors  `mean`, `std` (N, C, H, W): the VAE's posterior, unscaled, of pictures of one size
    text/<n>.safetensors      `embeddings` (M, L, D): each distinct caption once; caption 0 is the empty one

The index holds each shard's sha256, so its own digest stands for the whole folder.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import torch
from safetensors import SafetensorError, safe_open

from stages.core.errors import StageError
from stages.core.files import file_digest
from stages.core.sizes import by_size

CAPTIONS_A_SHARD = 4096

INDEX = pa.schema(
    {
        "key": pa.string(),
        "variant": pa.int64(),
        "split": pa.string(),
        "role": pa.string(),
        "repeats": pa.int64(),
        "shard": pa.string(),
        "row": pa.int64(),
        "shard_sha256": pa.string(),
        "captions": pa.list_(pa.int64()),
        "width": pa.int64(),
        "height": pa.int64(),
    }
)
CAPTIONS = pa.schema([("caption", pa.string()), ("shard_sha256", pa.string())])


@dataclass(frozen=True)
class Batch:
    """mean, std: (B, C, H, W) float32. keys: B. captions: for each row, the numbers of its captions."""

    mean: torch.Tensor
    std: torch.Tensor
    keys: list[str]
    captions: list[list[int]]


class Latents:
    """One split of data/latents, memory-mapped, in order of key and variant.

    A training picture is as many rows as it has repeats: an epoch shows it that often, each time with other draws.
    sizes: width and height of each row's picture, px. groups: the rows of each size.
    """

    def __init__(self, folder: Path, split: str) -> None:
        index = pd.read_parquet(folder / "index.parquet")
        chosen = index[index["split"] == split].sort_values(["key", "variant"])
        if split == "train":
            chosen = chosen.loc[chosen.index.repeat(chosen["repeats"])]
        self.folder = folder
        self.keys = [f"{row.key}/{row.variant}" for row in chosen.itertuples()]
        self.places = list(zip(chosen["shard"], chosen["row"].tolist(), strict=True))
        self.sizes = list(zip(chosen["width"].tolist(), chosen["height"].tolist(), strict=True))
        self.groups = by_size(self.sizes)
        self._files: dict[str, Any] = {}
        self.captions = [list(numbers) for numbers in chosen["captions"]]

    def __len__(self) -> int:
        return len(self.keys)

    def _open(self, name: str) -> Any:
        if name not in self._files:
            try:
                self._files[name] = safe_open(self.folder / name, framework="pt")
            except (OSError, SafetensorError) as error:
                raise StageError(str(self.folder / name), f"can't be read ({error})", "run encode again") from None
        return self._files[name]

    def read(self, rows: Sequence[int]) -> Batch:
        """The posteriors of some rows, in the order asked for; all of one size.

        Raises StageError if a shard can't be read.
        """
        parts = [self._read_one(row) for row in rows]
        return Batch(
            torch.stack([mean for mean, _ in parts]),
            torch.stack([std for _, std in parts]),
            [self.keys[row] for row in rows],
            [self.captions[row] for row in rows],
        )

    def _read_one(self, row: int) -> tuple[torch.Tensor, torch.Tensor]:
        name, place = self.places[row]
        file = self._open(name)
        return file.get_slice("mean")[place].float(), file.get_slice("std")[place].float()

    def text(self, captions: Sequence[int]) -> torch.Tensor:
        """The embeddings of some captions, (B, L, D) float32."""
        rows = []
        for number in captions:
            shard, place = divmod(number, CAPTIONS_A_SHARD)
            rows.append(self._open(f"text/{shard:05d}.safetensors").get_slice("embeddings")[place].float())
        return torch.stack(rows)


def latents_digest(folder: Path) -> str:
    """sha256 that stands for every byte of the folder: the tables hold the shards' own."""
    return file_digest(folder / "index.parquet") + file_digest(folder / "captions.parquet")
