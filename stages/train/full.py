"""method full: every weight of the denoiser learns, and the text encoders' if asked."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from stages.core.latents import Latents
from stages.core.weights import WEIGHTS, save_weights
from stages.train.learner import Opened, below
from stages.train.loop import Prepared
from stages.train.texts import Texts


class Full:
    """All weights. The text encoders, where they learn, are parts of the model beside the denoiser."""

    def __init__(self, opened: Opened, texts: Texts, encoders: dict[str, torch.nn.Module]) -> None:
        self.opened, self.texts, self.encoders = opened, texts, encoders
        self.denoiser = opened.denoiser.network
        self.model = torch.nn.ModuleDict({"denoiser": self.denoiser, **encoders}).requires_grad_(True)

    @property
    def rates(self) -> list[tuple[torch.nn.Module, float]]:
        factor = self.opened.params.text_encoder.rate
        return [(self.denoiser, 1.0), *((encoder, factor) for encoder in self.encoders.values())]

    def conditions(self, data: Latents, rows: Sequence[int]) -> Prepared:  # noqa: ARG002 - other methods read them
        return {}

    def further(self, prepared: Prepared) -> None:
        """Nothing."""

    def show(self, pipeline: Any, data: Latents, count: int) -> tuple[Any, None]:  # noqa: ARG002 - other methods do
        setattr(pipeline, self.opened.denoiser.family.denoiser, self.denoiser)
        for name, encoder in self.encoders.items():
            setattr(pipeline, name, encoder)
        return pipeline, None

    def save(self, weights: dict[str, torch.Tensor], about: dict[str, Any], out: Path) -> None:
        """The trained parts in place of the base's."""
        replace_part(out / self.opened.denoiser.family.denoiser, WEIGHTS, below(weights, "denoiser."), about)
        for name in self.encoders:
            replace_part(out / name, "model.safetensors", below(weights, f"{name}."), about)


def replace_part(part: Path, name: str, weights: dict[str, torch.Tensor], about: dict[str, Any]) -> None:
    """One weight file in place of a part's; a large base has several, and an index of them."""
    for path in part.glob("*.safetensors*"):
        path.unlink()
    save_weights(weights, part / name, about)


def as_type(value: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Numbers with a point in this type, others as they are; on the CPU."""
    return value.detach().to(dtype if value.is_floating_point() else value.dtype).cpu()
