"""Tensors of derived draws (see `stages.core.draws`), always made on the CPU: every device gets the same."""

import torch

from stages.core.draws import Part, seed_of


def normal(shape: tuple[int, ...], *parts: Part) -> torch.Tensor:
    """A float32 tensor of independent standard normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed_of(*parts)))


def permutation(length: int, *parts: Part) -> torch.Tensor:
    """The numbers 0 to length - 1 in a drawn order, int64."""
    return torch.randperm(length, generator=torch.Generator().manual_seed(seed_of(*parts)))
