"""data/processed as tensors: finished pictures, for the parts that learn from pixels."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from stages.core.pairs import read_rows, shards_below
from stages.core.sizes import by_size


class Pixels:
    """One split of data/processed, in order of key and variant; repeats and sizes as in `stages.core.latents.Latents`.

    The files' bytes are in memory, not the pixels.
    """

    def __init__(self, folder: Path, split: str) -> None:
        columns = ["key", "variant", "image", "captions", "split", "repeats", "width", "height"]
        found = (row for row in read_rows(shards_below(folder), columns) if row["split"] == split)
        rows = [row for row in found for _ in range(row["repeats"] if split == "train" else 1)]
        rows.sort(key=lambda row: (row["key"], row["variant"]))
        self.keys = [f"{row['key']}/{row['variant']}" for row in rows]
        self.captions: list[list[str]] = [row["captions"] for row in rows]
        self.sizes = [(row["width"], row["height"]) for row in rows]
        self.groups = by_size(self.sizes)
        self._files: list[bytes] = [row["image"]["bytes"] for row in rows]

    def __len__(self) -> int:
        return len(self.keys)

    def read(self, rows: Sequence[int]) -> torch.Tensor:
        """Some pictures of one size, (B, 3, H, W) float32 from -1 to 1."""
        return to_pixels([self._files[row] for row in rows])


def to_pixels(pictures: Sequence[bytes]) -> torch.Tensor:
    """Finished pictures as (B, 3, H, W) float32 from -1 to 1, as Stable Diffusion's VAE wants them."""
    arrays = [np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in pictures]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_images(pixels_B3HW: torch.Tensor) -> list[Image.Image]:
    """Pixels from -1 to 1, what lies beyond cut, as pictures."""
    bytes_BHW3 = ((pixels_B3HW.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(array) for array in bytes_BHW3]
