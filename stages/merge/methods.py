"""Merge methods: short functions of tensors, in float32."""

import torch


def weighted_sum(a: torch.Tensor, b: torch.Tensor, ratio: float) -> torch.Tensor:
    """(1 - ratio) a + ratio b, for tensors of one shape; exactly a at 0 and exactly b at 1.

    Source: model soups with two ingredients (Wortsman et al., arXiv 2203.05482).
    """
    return torch.lerp(a, b, ratio)
