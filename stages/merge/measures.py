"""What a method has to know of a whole tensor, read once in chunks: sums in float64, in the chunks' order.

chunks: called as often as a measure has to look; gives {a, b, c, models}, some rows at a time.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch

Chunks = Callable[[], Iterator[dict[str, Any]]]

PARALLEL = 0.9995  # cosine above which two tensors count as parallel: sin(omega) is lost in float32


@dataclass(frozen=True)
class Cosines:
    """columns: between a's and b's columns (along the rows), (1, ...) or one number. whole: between the tensors."""

    columns: torch.Tensor
    whole: float


def angle(chunks: Chunks) -> float | None:
    """Between a and b, radians; None where it has no use: nearly 0 or pi, or one of them vanishes."""
    dot = left = right = 0.0
    for chunk in chunks():
        a, b = chunk["a"].flatten(), chunk["b"].flatten()
        dot += _dot(a, b)
        left += _dot(a, a)
        right += _dot(b, b)
    norms = math.sqrt(left * right)
    if norms == 0 or abs(dot / norms) > PARALLEL:
        return None
    return math.acos(dot / norms)


def columns(chunks: Chunks) -> Cosines:
    """Cosines along the first dimension. A column without length has the cosine 0."""
    dot: torch.Tensor | float = 0.0
    left: torch.Tensor | float = 0.0
    right: torch.Tensor | float = 0.0
    for chunk in chunks():
        a, b = chunk["a"].double(), chunk["b"].double()
        dot = dot + (a * b).sum(dim=0, keepdim=True)
        left = left + (a * a).sum(dim=0, keepdim=True)
        right = right + (b * b).sum(dim=0, keepdim=True)
    dot, left, right = torch.as_tensor(dot), torch.as_tensor(left), torch.as_tensor(right)
    norms = (left * right).sqrt()
    whole = float(left.sum() * right.sum()) ** 0.5
    by_column = torch.where(norms > 0, dot / norms.clamp(min=1e-300), 0.0).float()
    return Cosines(by_column, float(dot.sum()) / whole if whole else 0.0)


def pairwise_cosine(chunks: Chunks) -> float:
    """The mean cosine between two of the deltas `models - a`; a delta without length has the cosine 0."""
    products: torch.Tensor | float = 0.0
    for chunk in chunks():
        deltas = torch.stack([(theta - chunk["a"]).flatten() for theta in chunk["models"]]).double()
        products = products + deltas @ deltas.T
    gram = torch.as_tensor(products)
    norms = gram.diagonal().sqrt()
    scale = norms[:, None] * norms[None]
    cosines = torch.where(scale > 0, gram / scale.clamp(min=1e-300), 0.0)
    number = len(gram)
    return float((cosines.sum() - cosines.diagonal().sum()) / (number * (number - 1)))


def thresholds(chunks: Chunks, density: float) -> list[float]:
    """The k-th largest magnitude of each delta `models - a`, k the share `density` of its numbers, one at least.

    Exact: floats of one sign are ordered as their bits are, so two counts, of the upper and of the lower 16 bits, find
    the number in constant memory. Numbers of equal magnitude stay or go together.
    """
    first, *others = islice(chunks(), 2)
    if density == 1:
        return [0.0 for _ in first["models"]]
    if not others:
        return [_largest((theta - first["a"]).abs().flatten(), density) for theta in first["models"]]
    upper: list[torch.Tensor] = []
    for chunk in chunks():
        upper = _count(upper, [bits >> 16 for bits in _bits(chunk)])
    total = int(upper[0].sum())
    wanted = max(1, int(density * total))
    heads, left = zip(*(_from_above(counts, wanted) for counts in upper), strict=True)
    lower: list[torch.Tensor] = []
    for chunk in chunks():
        found = [bits[bits >> 16 == head] & 0xFFFF for bits, head in zip(_bits(chunk), heads, strict=True)]
        lower = _count(lower, found)
    tails = [_from_above(counts, rest)[0] for counts, rest in zip(lower, left, strict=True)]
    bits = torch.tensor([head << 16 | tail for head, tail in zip(heads, tails, strict=True)], dtype=torch.int32)
    return [float(value) for value in bits.view(torch.float32)]


def _largest(sizes: torch.Tensor, density: float) -> float:
    """The same of a tensor that is one chunk."""
    wanted = max(1, int(density * len(sizes)))
    return float(sizes.kthvalue(len(sizes) - wanted + 1).values)


def _dot(a: torch.Tensor, b: torch.Tensor) -> float:
    """In float64: the cosine of nearly parallel tensors is a small difference."""
    return float(torch.dot(a.double(), b.double()))


def _bits(chunk: dict[str, Any]) -> list[torch.Tensor]:
    """The magnitudes of the deltas as whole numbers of the same order."""
    return [(theta - chunk["a"]).abs().flatten().view(torch.int32) for theta in chunk["models"]]


def _count(counts: list[torch.Tensor], found: list[torch.Tensor]) -> list[torch.Tensor]:
    """How often each of 2**16 numbers was found, added to what was counted before."""
    new = [torch.bincount(each, minlength=1 << 16) for each in found]
    return [old + more for old, more in zip(counts, new, strict=True)] if counts else new


def _from_above(counts: torch.Tensor, wanted: int) -> tuple[int, int]:
    """The number at which `wanted` are reached, counted from the largest, and how many of it those are."""
    reached = counts.flip(0).cumsum(0)
    place = int((reached >= wanted).nonzero()[0])
    before = int(reached[place - 1]) if place else 0
    return len(counts) - 1 - place, wanted - before
