"""data/latents: what training would compute again and again, computed once.

    index.parquet           a row a key and variant: where its latents and captions are; `origin`: a finished
                              picture, or by boomerang of one, `origin_bits` away (of 64, by perceptual hash)
    pictures/<n>.safetensors  `mean`, `std` (N, C, H, W): the VAE's posterior, unscaled, of pictures of one size
                              with `<condition>` (N, 1 or 3, H, W) uint8 beside, where pictures have conditions
    text/<n>.safetensors      `embeddings` (M, L, D), `pooled` (M, P) where the family has it: each distinct caption
                              once; caption 0 is the empty one

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
from stages.core.families.family import Text
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
        **dict.fromkeys(("width", "height", "original_width", "original_height", "crop_x", "crop_y"), pa.int64()),
        "origin": pa.string(),
        "origin_bits": pa.int64(),
    }
)
FRAME = ("original_height", "original_width", "crop_y", "crop_x", "height", "width")  # as SDXL is told them
CAPTIONS = pa.schema([("caption", pa.string()), ("shard_sha256", pa.string())])


@dataclass(frozen=True)
class Batch:
    """mean, std: (B, C, H, W) float32. keys: B. captions: for each row, the numbers of its captions.

    frames: (B, 6) float32, the columns FRAME; a crop's negative offset, where a picture was padded, is 0.
    """

    mean: torch.Tensor
    std: torch.Tensor
    keys: list[str]
    captions: list[list[int]]
    frames: torch.Tensor


class Latents:
    """One split of data/latents, memory-mapped, in order of key and variant.

    A training picture is as many rows as it has repeats: an epoch shows it that often, each time with other draws.
    sizes: width and height of each row's picture, px. groups: the rows of each size.
    roles: train or regularisation (of the split train, where `roles` says so).
    """

    def __init__(self, folder: Path, split: str, roles: Sequence[str] = ("train", "regularisation")) -> None:
        index = pd.read_parquet(folder / "index.parquet")
        chosen = index[(index["split"] == split) & index["role"].isin(roles)].sort_values(["key", "variant"])
        if split == "train":
            chosen = chosen.loc[chosen.index.repeat(chosen["repeats"])]
        self.folder = folder
        self.keys = [f"{row.key}/{row.variant}" for row in chosen.itertuples()]
        self.places = list(zip(chosen["shard"], chosen["row"].tolist(), strict=True))
        self.sizes = list(zip(chosen["width"].tolist(), chosen["height"].tolist(), strict=True))
        self.groups = by_size(self.sizes)
        self.frames = torch.tensor(chosen[list(FRAME)].to_numpy("float32")).clamp(min=0)
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
            self.frames[list(rows)],
        )

    def _read_one(self, row: int) -> tuple[torch.Tensor, torch.Tensor]:
        name, place = self.places[row]
        file = self._open(name)
        return file.get_slice("mean")[place].float(), file.get_slice("std")[place].float()

    def text(self, captions: Sequence[int]) -> Text:
        """What a denoiser reads of some captions, float32."""
        parts: dict[str, list[torch.Tensor]] = {}
        for number in captions:
            shard, place = divmod(number, CAPTIONS_A_SHARD)
            file = self._open(f"text/{shard:05d}.safetensors")
            for name in file.keys():  # noqa: SIM118 - a file of tensors is no dict
                parts.setdefault(name, []).append(file.get_slice(name)[place].float())
        return Text(**{name: torch.stack(rows) for name, rows in parts.items()})

    def condition(self, name: str, rows: Sequence[int]) -> torch.Tensor:
        """The pictures that a ControlNet follows, (B, 3, H, W) float32 from 0 to 1.

        Raises StageError if the rows have none of this name.
        """
        found = []
        for row in rows:
            shard, place = self.places[row]
            file = self._open(shard)
            if name not in file.keys():  # noqa: SIM118 - a file of tensors is no dict
                raise StageError(
                    "train", f"the pictures have no condition {name}", f"add {name} to preprocess.conditions"
                )
            found.append(file.get_slice(name)[place].float() / 255)
        return torch.stack([picture.expand(3, -1, -1) for picture in found])

    def caption_texts(self) -> list[str]:
        """Every caption by its number."""
        captions: list[str] = pd.read_parquet(self.folder / "captions.parquet")["caption"].tolist()
        return captions


def latents_digest(folder: Path) -> str:
    """sha256 that stands for every byte of the folder: the tables hold the shards' own."""
    return file_digest(folder / "index.parquet") + file_digest(folder / "captions.parquet")
