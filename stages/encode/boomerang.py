"""Variants by local sampling: a picture goes part of the way into noise and comes back another way.

Luzi et al., arXiv 2210.12100: z_t from z_0 in one step, then the ordinary reverse process from t to 0, by the model
that will be trained. How far it went is judged by perceptual hashes (phash, 64 bits) of what the VAE makes of both
latents: against the decoded original, since what the VAE itself loses has nothing to do with the way through noise.

Shapes: B pictures, C latent channels, h x w latent pixels.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import imagehash
import pyarrow as pa
import torch

from stages.core.draws import uniform
from stages.core.engine import ahead
from stages.core.families.family import Text
from stages.core.families.known import family_of
from stages.core.latents import FRAME
from stages.core.models import best_device
from stages.core.noise import normal
from stages.core.objective import Denoiser, open_denoiser
from stages.core.pixels import to_images
from stages.core.reuse import Known
from stages.core.solver import Solver
from stages.encode.batches import Batch, batches, from_bytes, made_of, open_reuse, to_bytes
from stages.encode.captions import Embeddings
from stages.encode.memory import within_memory
from stages.encode.params import Boomerang as Bounds
from stages.encode.params import EncodeParams
from stages.encode.posteriors import Posteriors, refuse_wild
from stages.encode.processed import Picture

NUMBERED_FROM = 1000  # a variant's number is its picture's and this
MODULES = ("draws", "latents", "models", "noise", "objective", "pixels", "process", "solver")  # its code, in core


@dataclass(frozen=True, slots=True)
class Origin:
    """What a variant is made of: a row of data/processed, its first caption, its frame as in `core.latents.FRAME`."""

    picture: Picture
    variant: int
    caption: str
    frame: tuple[int, ...]

    @property
    def key(self) -> str:
        return f"{self.picture.key}/{self.variant}"

    @property
    def name(self) -> str:
        about = [self.picture.name, self.key, self.caption, self.frame]
        return sha256(json.dumps(about).encode()).hexdigest()


@dataclass(frozen=True)
class Start:
    """Where a batch begins: latents as stored and noise, (B, C, h, w); what the denoiser is told."""

    mean: torch.Tensor
    noise: torch.Tensor
    text: Text
    frames: torch.Tensor


class Boomerang:
    """Makes variants and remembers them by all that goes into them. The models are opened when there is one to make."""

    def __init__(self, params: EncodeParams, base: Path, posteriors: Posteriors, embeddings: Embeddings) -> None:
        self.params = params
        self.base = base
        self.posteriors = posteriors
        self.embeddings = embeddings
        how = params.boomerang.model_dump_json(include={"t", "guidance", "steps", "seed"})
        parts = [base / family_of(base).denoiser, base / "scheduler"]
        before = (posteriors.made_of, embeddings.made_of)  # these stand for the machine and the others' weights
        self.made_of = made_of(params, parts, how, *before, modules=MODULES)
        self.reuse: Known = open_reuse("boomerang", self.made_of)

    @cached_property
    def denoiser(self) -> Denoiser:
        denoiser = open_denoiser(self.base)
        denoiser.network.eval().requires_grad_(False).to(best_device())
        return denoiser

    @cached_property
    def solver(self) -> Solver:
        return Solver(self.base, self.params.boomerang.steps)

    def missing(self, origins: Sequence[Origin]) -> list[Origin]:
        """Those whose variant isn't known."""
        by_name = {origin.name: origin for origin in origins}
        return [by_name[name] for name in self.reuse.missing(by_name)]

    def encode(self, origins: Sequence[Origin]) -> Iterator[int]:
        """Make these variants; after each batch, how many it held.

        Raises StageError naming those whose latents are not finite or out of range.
        """
        items = ((origin.name, origin.key, (origin.picture.width, origin.picture.height), origin) for origin in origins)
        for batch in ahead(batches(items, self.posteriors.at_once, self._start)):
            with within_memory(self.params, f"{len(batch.input.mean)} pictures on their way through noise"):
                self.reuse.put(self._make(batch))
            yield len(batch.names)

    def _start(self, origins: Sequence[Origin]) -> Start:
        mean = self.posteriors.known([origin.picture for origin in origins])["mean"]
        seed = self.params.boomerang.seed
        noise = torch.stack([normal(tuple(mean.shape[1:]), seed, "boomerang", origin.key) for origin in origins])
        text = self._text([origin.caption for origin in origins])
        frames = torch.tensor([origin.frame for origin in origins], dtype=torch.float32).clamp(min=0)
        return Start(mean, noise, text, frames)

    def _text(self, captions: Sequence[str]) -> Text:
        return Text(**{name: value.float() for name, value in self.embeddings.known(captions).items()})

    @torch.no_grad()
    def _make(self, batch: Batch[Start]) -> dict[str, bytes]:
        start, scale, guidance = batch.input, self.posteriors.scale, self.params.boomerang.guidance
        device, count = best_device(), len(batch.input.mean)
        first = self.solver.nearest(self.params.boomerang.t)
        timesteps_B = self.solver.timesteps[first].to(device).expand(count)
        latents = scale.apply(start.mean.float()).to(device)
        noised = self.denoiser.process.noised(latents, start.noise.to(device), timesteps_B)
        away = self._text([""] * count).to(device) if guidance != 1 else None
        text, frames = start.text.to(device), start.frames.to(device)
        redrawn = self.solver.solve(self.denoiser, noised, text, away, frames, guidance, first)
        mean_BChw = scale.undo(redrawn).cpu().to(start.mean.dtype)
        refuse_wild(self.params, scale, batch.keys, mean_BChw[: len(batch.keys)])
        pairs = zip(start.mean, mean_BChw, strict=True)
        bits = [hamming(self._hash(one), self._hash(other)) for one, other in list(pairs)[: len(batch.names)]]
        return to_bytes(batch.names, {"mean": mean_BChw[: len(bits)], "bits": torch.tensor(bits)})

    def _hash(self, mean_Chw: torch.Tensor) -> imagehash.ImageHash:
        """Of what latents look like; one by one, since decoding takes more memory than encoding."""
        vae = self.posteriors.vae
        (image,) = to_images(vae.decode(mean_Chw[None].float().to(vae.device)).sample)
        return imagehash.phash(image)

    def known(self, origins: Sequence[Origin]) -> dict[str, torch.Tensor]:
        """`mean` (B, C, h, w), unscaled, in the stored dtype, and `bits` (B,) of variants of one size.

        bits: Hamming distance of the perceptual hashes of original and variant, both as the VAE decodes them.
        """
        names = [origin.name for origin in origins]
        values = from_bytes(self.reuse.get(set(names)), names)
        refuse_wild(self.params, self.posteriors.scale, [origin.key for origin in origins], values["mean"])
        return values


def hamming(one: imagehash.ImageHash, other: imagehash.ImageHash) -> int:
    """In how many of 64 bits two perceptual hashes differ."""
    return int(one - other)


def verdict(bounds: Bounds, bits: int) -> str:
    """kept, or why not: unchanged or drifted."""
    return "unchanged" if bits < bounds.least else "drifted" if bits > bounds.most else "kept"


def drawn_rows(bounds: Bounds, rows: pa.Table) -> list[int]:
    """Which rows of data/processed get a variant: of training pictures, by their key alone."""
    keys = zip(rows.column("key").to_pylist(), rows.column("split").to_pylist(), strict=True)
    return [
        row
        for row, (key, split) in enumerate(keys)
        if split == "train" and uniform(bounds.seed, "boomerang", key) < bounds.share
    ]


def origins_of(rows: pa.Table, pictures: Sequence[Picture], drawn: Sequence[int]) -> list[Origin]:
    """What the variants of the drawn rows are made of."""
    return [
        Origin(pictures[number], row["variant"], next(iter(row["captions"]), ""), tuple(row[name] for name in FRAME))
        for number, row in zip(drawn, rows.take(pa.array(drawn, pa.int64())).to_pylist(), strict=True)
    ]
