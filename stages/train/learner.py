"""What a method of training is: which weights learn, what the denoiser reads, what comes out. One a module."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from stages.core.families.family import Encoder, open_encoders
from stages.core.latents import Latents
from stages.core.objective import Denoiser, Further, open_denoiser
from stages.train.loop import Prepared
from stages.train.params import TrainParams
from stages.train.texts import Texts


@dataclass
class Opened:
    """A base model, opened for training, and what it is to learn from. Nothing in it takes gradients yet."""

    params: TrainParams
    base: Path
    denoiser: Denoiser
    train: Latents
    captions: list[str]

    def encoders(self) -> list[Encoder]:
        """The base's text encoders, opened anew."""
        return open_encoders(self.denoiser.family, self.base)


class Learner(Protocol):
    """One method. model: holds every weight that learns, those that take gradients. texts: the captions' source.

    rates: which modules learn at which share of the learning rate.
    """

    @property
    def model(self) -> torch.nn.Module: ...

    @property
    def texts(self) -> Texts: ...

    @property
    def rates(self) -> list[tuple[torch.nn.Module, float]]: ...

    def conditions(self, data: Latents, rows: Sequence[int]) -> Prepared:
        """What else a batch needs of these rows."""

    def further(self, prepared: Prepared) -> Further | None:
        """What else the denoiser is called with."""

    def show(self, pipeline: Any, data: Latents, count: int) -> tuple[Any, list[Any] | None]:
        """The pipeline with what has been learned, and a condition for each of so many pictures, if it wants them."""

    def save(self, weights: dict[str, torch.Tensor], about: dict[str, Any], out: Path) -> None:
        """Change `out`, a copy of the base, into what was learned; weights: by their names in `model`."""


def open_base(params: TrainParams, latents: Path, base: Path, roles: Sequence[str]) -> Opened:
    """Open base and latents."""
    schedule = {"rescale_betas_zero_snr": True} if params.objective.zero_terminal_snr else {}
    denoiser = open_denoiser(base, **schedule)
    denoiser.network.requires_grad_(False)
    train = Latents(latents, "train", roles)
    return Opened(params, base, denoiser, train, train.caption_texts())


def below(weights: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """The weights of one part of a model, by their names in it."""
    return {name.removeprefix(prefix): weight for name, weight in weights.items() if name.startswith(prefix)}
