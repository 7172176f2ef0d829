"""Adafactor: AdamW's steps without its memory."""

from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from stages.train.sharding import part_of, whole


class Adafactor(Optimizer):
    """Steps divided by the gradients' root mean square, of which only means over rows and columns are kept.

    Shazeer and Stern (arXiv 1804.04235), algorithm 4, with the rate it is given in place of its relative step:
    beta2 = 1 - t^-0.8 (section 7.2), no momentum, a step's root mean square at most 1 times the rate. A convolution's
    weight is a matrix of out x (in x height x width). The versions of torch and transformers take its last two
    dimensions, 3 x 3, for the matrix and keep 458 million numbers for the UNet of Stable Diffusion 1.5, this one
    1.5 million; torch's also multiplies each step by the size of the weights.
    """

    def __init__(self, weights: ParamsT, lr: float, weight_decay: float = 0.0) -> None:
        super().__init__(weights, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002  # torch's signature; no caller here has a closure
        """Move every weight that has a gradient."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                grad = whole(weight.grad) if weight.ndim > 1 else weight.grad  # of a vector nothing is averaged
                direction = grad * inverse_root(self.state[weight], grad)
                direction /= direction.square().mean().sqrt().clamp(min=1)
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(part_of(direction, weight), alpha=-group["lr"])


def inverse_root(state: dict[str, Any], grad: torch.Tensor) -> torch.Tensor:
    """1 / sqrt(V) of the mean squares V that `state` holds, after it took in this gradient's; of the same shape.

    V = R C / mean(R), from the means over each row R and each column C; of a vector V itself.
    """
    state["step"] = state.get("step", 0) + 1
    fresh = state["step"] ** -0.8
    square = grad.square() + 1e-30

    def averaged(name: str, mean: torch.Tensor) -> torch.Tensor:
        kept: torch.Tensor = state.setdefault(name, torch.zeros_like(mean))
        return kept.lerp_(mean, fresh)

    if grad.ndim < 2:
        return averaged("square", square).rsqrt()
    matrix = square.flatten(1)
    row, column = averaged("row", matrix.mean(dim=1)), averaged("column", matrix.mean(dim=0))
    return torch.outer((row / row.mean()).rsqrt(), column.rsqrt()).view(grad.shape)
