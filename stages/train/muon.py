"""Muon: momentum whose every step is made orthogonal."""

import torch
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from stages.train.sharding import part_of, whole


class Muon(Optimizer):
    """Weak directions are learned as fast as strong ones.

    Jordan et al. 2024 (kellerjordan.github.io/posts/muon), with Nesterov's momentum; a step's size is that of
    AdamW's at the same learning rate, 0.2 sqrt(max(out, in)) (Liu et al., arXiv 2502.16982, eq. 4). A convolution's
    weight is a matrix of out x (in x height x width). torch.optim.Muon takes matrices only, and sums in bfloat16,
    which a CPU without such instructions does at a tenth of the speed.
    """

    def __init__(self, weights: ParamsT, lr: float, weight_decay: float = 0.0, momentum: float = 0.95) -> None:
        super().__init__(weights, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002  # torch's signature; no caller here has a closure
        """Move every weight that has a gradient."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["momentum"] = torch.zeros_like(weight)
                momentum = state["momentum"].mul_(group["momentum"]).add_(weight.grad)
                ahead = weight.grad.add(momentum, alpha=group["momentum"])
                direction = part_of(orthogonal(whole(ahead).flatten(1)).view(weight.shape), weight)
                size = 0.2 * max(len(weight), weight.numel() // len(weight)) ** 0.5
                weight.mul_(1 - group["lr"] * group["weight_decay"]).add_(direction, alpha=-group["lr"] * size)


def orthogonal(matrix: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """About U V^T of a matrix U S V^T: its singular values come to lie between 0.5 and 1.5, tiny ones below.

    Newton-Schulz iteration X <- (a + b X X^T + c (X X^T)^2) X with Jordan et al.'s coefficients. For matrices
    at least twice as long as wide only the small product X X^T is iterated and X multiplied once, the same
    polynomial for less than half of the work.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x: torch.Tensor = matrix / (matrix.norm() + 1e-7)
    if turned := x.shape[0] > x.shape[1]:
        x = x.T
    if x.shape[1] < 2 * x.shape[0]:
        for _ in range(steps):
            gram = x @ x.T
            x = a * x + (b * gram + c * gram @ gram) @ x
    else:
        one = torch.eye(len(x), dtype=x.dtype, device=x.device)
        gram, product = x @ x.T, one
        for _ in range(steps):
            factor = a * one + b * gram + c * gram @ gram
            product, gram = factor @ product, factor @ gram @ factor
        x = product @ x
    return x.T if turned else x
