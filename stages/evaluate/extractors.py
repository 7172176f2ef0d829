"""What turns pictures into features. Figures of two extractors never compare; hence the id and hash beside each.

A picture's features don't depend on the pictures beside it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel

from stages.core.files import folder_digest
from stages.core.models import best_device, load_vae, part_of
from stages.core.vision import Clip, identity_of, open_model, pixels_of
from stages.evaluate import classical
from stages.evaluate.classical import Features
from stages.evaluate.params import EvaluateParams

BATCH = 32
GRID = 4  # of the VAE's latents: so many cells a side


class Extractor(Protocol):
    """identity: what stands for it and its weights. kinds: how many features of each kind, in order."""

    @property
    def identity(self) -> Mapping[str, str | None]: ...

    @property
    def kinds(self) -> tuple[int, ...]: ...

    def read(self, pictures: Sequence[Image.Image]) -> Features:
        """(B, D) of at most BATCH pictures."""


class Classical:
    """See `stages.evaluate.classical`."""

    identity = MappingProxyType({"name": "classical", "id": "classical-1", "sha256": None})
    kinds = classical.KINDS

    def read(self, pictures: Sequence[Image.Image]) -> Features:
        return np.array([classical.features_of(picture) for picture in pictures])


class Autoencoder:
    """The posterior's mean of the base's VAE encoder: mean and deviation of each channel in a grid of cells."""

    def __init__(self, base: Path) -> None:
        self.vae = load_vae(base).to(best_device())
        digest = folder_digest(part_of(base, "vae"))
        self.identity = {"name": "vae", "id": f"vae, {GRID} x {GRID} cells", "sha256": digest}
        size = self.vae.config.sample_size
        self.side = int(size if isinstance(size, int) else size[0])
        features = GRID * GRID * int(self.vae.config.latent_channels)
        self.kinds = (features, features)

    def read(self, pictures: Sequence[Image.Image]) -> Features:
        """At the VAE's own size."""
        sized = [picture.resize((self.side, self.side), Image.Resampling.BICUBIC) for picture in pictures]
        return self.as_they_are(sized)

    @torch.no_grad()
    def as_they_are(self, pictures: Iterable[Image.Image]) -> Features:
        """At their own sizes, (N, D); one at a time: how many are at hand must not change a bit."""
        found = []
        for picture in pictures:
            pixels = torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)[None].float() / 127.5 - 1
            found.append(pooled(self.vae.encode(pixels.to(self.vae.device)).latent_dist.mode())[0])
        return np.array(found).reshape(len(found), sum(self.kinds))


class ClipPictures:
    """A CLIP's picture vectors, of unit length."""

    def __init__(self, name: str, folder: str) -> None:
        self.clip = Clip("evaluate.extractor", folder)
        self.identity = {"name": name, "id": name, "sha256": identity_of(folder)}
        self.kinds = (self.read([Image.new("RGB", (64, 64))]).shape[1],)

    def read(self, pictures: Sequence[Image.Image]) -> Features:
        return np.asarray(self.clip.pictures(pictures, BATCH).numpy())


class PictureModel:
    """What a picture model of transformers gives as its pooled output."""

    def __init__(self, name: str, folder: str) -> None:
        self.model = open_model("evaluate.extractor", AutoModel, folder)
        self.pixels = AutoImageProcessor.from_pretrained(folder)
        self.identity = {"name": name, "id": name, "sha256": identity_of(folder)}
        self.kinds = (self.read([Image.new("RGB", (64, 64))]).shape[1],)

    @torch.no_grad()
    def read(self, pictures: Sequence[Image.Image]) -> Features:
        found: Any = self.model(**pixels_of(self.model, self.pixels, pictures, BATCH)).pooler_output
        return np.asarray(found.double().cpu().flatten(1).numpy()[: len(pictures)])


def pooled(latents_BCHW: torch.Tensor) -> Features:
    """Mean and deviation of each channel in a grid of cells, (B, 2 C GRID^2)."""
    latents = latents_BCHW.double().cpu()
    mean = torch.nn.functional.adaptive_avg_pool2d(latents, GRID)
    square = torch.nn.functional.adaptive_avg_pool2d(latents.square(), GRID)
    deviation = (square - mean.square()).clamp(min=0).sqrt()
    return np.asarray(torch.cat([mean.flatten(1), deviation.flatten(1)], dim=1).numpy())


def open_extractor(params: EvaluateParams, base: Path, imported: Path, shipped: Path) -> Extractor:
    """The one that params name. Raises StageError if it can't be opened."""
    kind, _, place = params.extractor.partition(":")
    if kind == "classical":
        return Classical()
    if kind == "vae":
        return Autoencoder(base)
    folder = params.folder_of(place, imported, shipped, "evaluate.extractor")
    return ClipPictures(params.extractor, folder) if kind == "clip" else PictureModel(params.extractor, folder)


def read_all(extractor: Extractor, pictures: Iterable[Image.Image]) -> Features:
    """(N, D) of any number of pictures; (0, D) of none."""
    return in_batches(extractor.read, pictures, sum(extractor.kinds))


def in_batches(
    read: Callable[[Sequence[Image.Image]], Features], pictures: Iterable[Image.Image], width: int
) -> Features:
    """What `read` says of at most BATCH pictures, of any number: (N, width)."""
    waiting, parts = iter(pictures), []
    while batch := list(islice(waiting, BATCH)):
        parts.append(read(batch))
    return np.concatenate(parts) if parts else np.zeros((0, width))
