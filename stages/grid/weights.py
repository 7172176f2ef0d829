"""One model's weights on their way from the base's, and by the strength of its LoRA: in memory, in float32."""

from pathlib import Path
from typing import Any

import torch

from stages.core.adapters import Strength
from stages.core.errors import StageError
from stages.core.families.family import Family, load_denoiser, load_encoder

Tensors = dict[str, torch.Tensor]


class Weights:
    """A pipeline whose denoiser and text encoders can be changed again and again, each time from the model's own.

    base: None where no ratio is asked for. strengths: whether any strength of the LoRA is.
    """

    def __init__(self, pipeline: Any, family: Family, model: Path, base: Path | None, strengths: bool) -> None:
        """Raises StageError if the base has other tensors, or the model no LoRA."""
        self.pipeline = pipeline
        self.strength = Strength(pipeline, model) if strengths else None
        parts = [name for name in (family.denoiser, *family.encoders) if getattr(pipeline, name, None) is not None]
        self.bases = {name: other for name in parts if base and (other := _differing(pipeline, family, base, name))}
        self.own = {
            name: {key: value.clone() for key, value in _tensors(pipeline, name).items()} for name in self.bases
        }

    @torch.no_grad()
    def set(self, ratio: float, strength: float) -> None:
        """(1 - ratio) base + ratio (W + (strength - 1) B A); 1 and 1 are the model itself, 0 the base."""
        for part, tensors in self.own.items():
            for key, value in _tensors(self.pipeline, part).items():
                value.copy_(tensors[key])
        if self.strength:
            self.strength.set(strength)
        if ratio != 1:
            for part, tensors in self.bases.items():
                for key, value in _tensors(self.pipeline, part).items():
                    value.copy_(torch.lerp(tensors[key].to(value), value, ratio))


def _tensors(pipeline: Any, part: str) -> Tensors:
    """Those that can be mixed: position numbers stay as they are."""
    state = getattr(pipeline, part).state_dict()
    return {key: value for key, value in state.items() if value.is_floating_point()}


def _differing(pipeline: Any, family: Family, base: Path, part: str) -> Tensors | None:
    """The base's tensors of a part, None if they are the model's."""
    denoises = part == family.denoiser
    network = load_denoiser(family, base) if denoises else load_encoder(family, base, part)
    others = {key: value for key, value in network.state_dict().items() if value.is_floating_point()}
    own = _tensors(pipeline, part)
    if {key: value.shape for key, value in own.items()} != {key: value.shape for key, value in others.items()}:
        raise StageError("grid", f"{part} of the model has other tensors than the base's", "leave the ratio out")
    return None if all(torch.equal(value, own[key].cpu()) for key, value in others.items()) else others
