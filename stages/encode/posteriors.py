"""The VAE's posterior of finished pictures, and how well the VAE gives them back.

Shapes: B pictures of H x W px, C latent channels, h x w latent pixels.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL

from stages.core.errors import StageError
from stages.core.models import best_device, load_scale, load_vae
from stages.core.pairs import read_rows
from stages.core.pixels import to_pixels
from stages.core.reuse import Reuse
from stages.encode.batches import Batch, ahead, batches, open_reuse
from stages.encode.params import EncodeParams


@dataclass(frozen=True)
class Picture:
    """A row of data/processed without its picture: which file and row, and the sha256 of the PNG."""

    key: str
    shard: Path
    row: int
    width: int
    height: int
    name: str


class Posteriors:
    """Encodes what isn't known yet and remembers it by the pictures' bytes."""

    def __init__(self, params: EncodeParams, base: Path) -> None:
        self.params = params
        self.dtype = np.dtype(params.dtype)
        self.reuse = open_reuse("pictures", params, [base / "vae"])
        self.errors = Reuse(self.reuse.path.with_suffix(".errors.sqlite"))
        self.scale = load_scale(base)
        self.vae: AutoencoderKL = load_vae(base).to(best_device())
        if params.tiling:
            self.vae.enable_tiling()

    def encode(self, pictures: Sequence[Picture]) -> Iterator[int]:
        """Encode those that are missing; after each batch, how many it held.

        Raises StageError naming the pictures whose latents are not finite or out of range.
        """
        missing = set(self.reuse.missing(picture.name for picture in pictures))
        first = {picture.name: picture for picture in reversed(pictures) if picture.name in missing}
        items = (
            (picture.name, picture.key, (picture.width, picture.height), data) for picture, data in read(first.values())
        )
        for batch in ahead(batches(items, self.params.batch_size, to_pixels)):
            self.reuse.put(self._encode_batch(batch))
            yield len(batch.names)

    @torch.no_grad()
    def _encode_batch(self, batch: Batch[torch.Tensor]) -> dict[str, bytes]:
        posterior = self.vae.encode(batch.input.to(self.vae.device)).latent_dist
        values_B2Chw = torch.stack([posterior.mean, posterior.std], dim=1).cpu().numpy()[: len(batch.names)]
        with np.errstate(over="ignore"):  # float16 ends at 65504; infinity is out of every range
            stored_B2Chw = values_B2Chw.astype(self.dtype)
        self.refuse_wild(batch.keys, stored_B2Chw[:, 0])
        return {name: value.tobytes() for name, value in zip(batch.names, stored_B2Chw, strict=True)}

    def known(self, pictures: Sequence[Picture]) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and deviation of encoded pictures of one size, each (B, C, h, w), unscaled, in the stored dtype."""
        names = [picture.name for picture in pictures]
        known = self.reuse.get(set(names))
        factor = 2 ** (len(self.vae.config.block_out_channels) - 1)
        width, height = pictures[0].width // factor, pictures[0].height // factor
        shape = (2, self.vae.config.latent_channels, height, width)
        values_B2Chw = np.stack([np.frombuffer(known[name], self.dtype).reshape(shape) for name in names])
        self.refuse_wild([picture.key for picture in pictures], values_B2Chw[:, 0])
        mean, std = (torch.from_numpy(values_B2Chw[:, part]).contiguous() for part in (0, 1))
        return mean, std

    def refuse_wild(self, keys: Sequence[str], mean_BChw: np.ndarray) -> None:
        """Raises StageError naming the pictures whose latents, scaled, are not finite or out of range."""
        largest = np.abs(self.scale.factor * (mean_BChw.astype(np.float32) - self.scale.shift)).max(axis=(1, 2, 3))
        wild = [place for place, value in enumerate(largest.tolist()) if not value <= self.params.range]
        if wild:  # a value that is no number too
            named = ", ".join(keys[place] for place in wild[:3]) + (", ..." if len(wild) > 3 else "")
            raise StageError(
                "encode",
                f"picture {named} has latents up to {largest[wild].max():.3g}",
                f"use another VAE, or raise encode.range ({self.params.range})",
            )

    @torch.no_grad()
    def round_trip_psnr(self, pictures: Sequence[Picture]) -> float:
        """Peak signal-to-noise ratio of decode(encode(x)), dB: well below 20 the VAE doesn't fit the pictures.

        Of each picture by itself, so that it too is known from earlier runs.
        """
        missing = set(self.errors.missing(picture.name for picture in pictures))
        for picture, data in read(picture for picture in pictures if picture.name in missing):
            pixels = to_pixels([data]).to(self.vae.device)
            decoded = self.vae.decode(self.vae.encode(pixels).latent_dist.mode()).sample
            error = float(((decoded.clamp(-1, 1) - pixels) ** 2).mean())
            self.errors.put({picture.name: error.hex().encode()})
        known = self.errors.get({picture.name for picture in pictures})
        weights = [picture.width * picture.height for picture in pictures]
        errors = [float.fromhex(known[picture.name].decode()) for picture in pictures]
        total = sum(weight * error for weight, error in zip(weights, errors, strict=True))
        return round(10 * math.log10(4 * sum(weights) / total), 2)


def read(pictures: Iterable[Picture]) -> Iterator[tuple[Picture, bytes]]:
    """The pictures' bytes, file by file and in the order of the rows; files that hold none of them stay closed."""
    wanted: dict[Path, dict[int, Picture]] = {}
    for picture in pictures:
        wanted.setdefault(picture.shard, {})[picture.row] = picture
    for shard in sorted(wanted):
        for number, row in enumerate(read_rows([shard], ["image"])):
            if number in wanted[shard]:
                yield wanted[shard][number], row["image"]["bytes"]
