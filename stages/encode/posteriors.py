"""The VAE's posterior of finished pictures, and how well the VAE gives them back.

Shapes: B pictures of H x W px, C latent channels, h x w latent pixels.
"""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL

from stages.core.engine import ahead
from stages.core.errors import StageError
from stages.core.models import Scale, best_device, load_scale, load_vae, part_of
from stages.core.pairs import read_images
from stages.core.pixels import to_pixels
from stages.core.reuse import Known
from stages.encode.batches import Batch, batches, from_bytes, made_of, open_reuse, this_machine, to_bytes
from stages.encode.memory import pictures_at_once, within_memory
from stages.encode.params import EncodeParams
from stages.encode.processed import Picture


class Posteriors:
    """Encodes pictures and remembers them by their bytes. The VAE is opened when there is something to encode."""

    def __init__(self, params: EncodeParams, base: Path, machine: str | None = None) -> None:
        self.params = params
        self.base = base
        self.dtype: torch.dtype = getattr(torch, params.dtype)
        self.made_of = made_of(params, [base / "vae"], machine or this_machine())
        self.reuse: Known = open_reuse("pictures", self.made_of)
        self.scale = load_scale(base)
        self.config: dict[str, Any] = json.loads((part_of(base, "vae") / "config.json").read_text(encoding="utf-8"))

    @cached_property
    def vae(self) -> AutoencoderKL:
        vae: AutoencoderKL = load_vae(self.base).to(best_device())
        if self.params.tiling:
            vae.enable_tiling()
        return vae

    def missing(self, pictures: Sequence[Picture]) -> list[Picture]:
        """Those that nothing is known of; of equal ones the first."""
        return unknown(self.reuse, pictures)

    def at_once(self, size: tuple[int, int]) -> int:
        """How many pictures of this width and height pass through the VAE at once."""
        return pictures_at_once(self.params, self.config, *size)

    def encode(self, pictures: Sequence[Picture]) -> Iterator[int]:
        """Encode these; after each batch, how many it held.

        Raises StageError naming the pictures whose latents are not finite or out of range.
        """
        items = ((picture.name, picture.key, (picture.width, picture.height), data) for picture, data in read(pictures))
        for batch in ahead(batches(items, self.at_once, to_pixels)):
            count, _, height, width = batch.input.shape
            with within_memory(self.params, f"{count} pictures of {width} x {height} px"):
                self.reuse.put(self._encode_batch(batch))
            yield len(batch.names)

    @torch.no_grad()
    def _encode_batch(self, batch: Batch[torch.Tensor]) -> dict[str, bytes]:
        posterior = self.vae.encode(batch.input.to(self.vae.device)).latent_dist
        # float16 ends at 65504; infinity is out of every range
        mean_BChw, std_BChw = (value.cpu().to(self.dtype) for value in (posterior.mean, posterior.std))
        refuse_wild(self.params, self.scale, batch.keys, mean_BChw[: len(batch.keys)])
        return to_bytes(batch.names, {"mean": mean_BChw, "std": std_BChw})

    def known(self, pictures: Sequence[Picture]) -> dict[str, torch.Tensor]:
        """`mean` and `std` of encoded pictures of one size, each (B, C, h, w), unscaled, in the stored dtype.

        Raises StageError as `encode` does: they may have been encoded under a wider range.
        """
        names = [picture.name for picture in pictures]
        values = from_bytes(self.reuse.get(set(names)), names)
        refuse_wild(self.params, self.scale, [picture.key for picture in pictures], values["mean"])
        return values


class RoundTrips:
    """How well the VAE gives pictures back, each by itself; remembered by their bytes."""

    def __init__(self, posteriors: Posteriors) -> None:
        self.params = posteriors.params
        self.posteriors = posteriors
        self.made_of = posteriors.made_of
        self.reuse: Known = open_reuse("errors", self.made_of)

    def missing(self, pictures: Sequence[Picture]) -> list[Picture]:
        """Those that nothing is known of; of equal ones the first."""
        return unknown(self.reuse, pictures)

    @torch.no_grad()
    def encode(self, pictures: Sequence[Picture]) -> Iterator[int]:
        """Encode and decode these; 1 after each."""
        for picture, data in read(pictures):
            vae = self.posteriors.vae
            pixels = to_pixels([data]).to(vae.device)
            decoded = vae.decode(vae.encode(pixels).latent_dist.mode()).sample
            error = float(((decoded.clamp(-1, 1) - pixels) ** 2).mean())
            self.reuse.put({picture.name: error.hex().encode()})
            yield 1

    def psnr(self, pictures: Sequence[Picture]) -> float:
        """Peak signal-to-noise ratio of decode(encode(x)), dB: well below 20 the VAE doesn't fit the pictures."""
        known = self.reuse.get({picture.name for picture in pictures})
        weights = [picture.width * picture.height for picture in pictures]
        errors = [float.fromhex(known[picture.name].decode()) for picture in pictures]
        total = sum(weight * error for weight, error in zip(weights, errors, strict=True))
        return round(10 * math.log10(4 * sum(weights) / total), 2)


def unknown(reuse: Known, pictures: Sequence[Picture]) -> list[Picture]:
    """Those that nothing is known of; of equal ones the first."""
    missing = set(reuse.missing(picture.name for picture in pictures))
    first = {picture.name: picture for picture in reversed(pictures) if picture.name in missing}
    return list(first.values())


def refuse_wild(params: EncodeParams, scale: Scale, keys: Sequence[str], mean_BChw: torch.Tensor) -> None:
    """Raises StageError naming the pictures whose latents, scaled, are not finite or out of range."""
    largest = scale.apply(mean_BChw.float()).abs().amax(dim=(1, 2, 3)).tolist()
    wild = [place for place, value in enumerate(largest) if not value <= params.range]  # a value that is no number too
    if wild:
        named = ", ".join(keys[place] for place in wild[:3]) + (", ..." if len(wild) > 3 else "")
        worst = torch.tensor([largest[place] for place in wild]).max()  # no number at all counts as the largest
        raise StageError(
            "encode",
            f"picture {named} has latents up to {worst:.3g}",
            f"use another VAE, or raise encode.range ({params.range})",
        )


def read(pictures: Iterable[Picture]) -> Iterator[tuple[Picture, bytes]]:
    """The pictures' bytes, file by file and in the order of the rows; what holds none of them isn't read."""
    wanted: dict[Path, dict[int, Picture]] = {}
    for picture in pictures:
        wanted.setdefault(picture.shard, {})[picture.row] = picture
    for shard in sorted(wanted):
        rows = sorted(wanted[shard])
        for row, image in zip(rows, read_images(shard, rows), strict=True):
            yield wanted[shard][row], image["bytes"]
