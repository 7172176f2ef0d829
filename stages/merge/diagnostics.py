"""What a merge did to the weights, measured on the way: how far each block went, and what rounding took back.

Small tensors are measured whole; of the larger ones the first rows and one chunk in 32, chosen by name. Sums are in
float64 and are added up in the tensors' order, so they are the same for any number of threads.
"""

import math
from dataclasses import dataclass, field
from itertools import combinations, combinations_with_replacement
from typing import Any

import torch

from stages.core.draws import seed_of
from stages.merge.graph import Leaf, Node, Task, leaves, value
from stages.merge.headers import Files

ONE_IN = 32
FIRST = 16_384  # numbers of each tensor that are measured in any case


@dataclass
class Sums:
    """Of one tensor or of several. size: of the first model's weights; delta: of what the merge did to them."""

    numbers: float = 0.0
    size: float = 0.0
    delta: float = 0.0
    changed: float = 0.0
    lost: float = 0.0
    contested: float = 0.0
    conflicts: float = 0.0
    products: dict[tuple[str, str], float] = field(default_factory=dict)

    def add(self, other: "Sums") -> None:
        for name in ("numbers", "size", "delta", "changed", "lost", "contested", "conflicts"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for pair, product in other.products.items():
            self.products[pair] = self.products.get(pair, 0.0) + product


class Meter:
    """Measures chunks as they are written."""

    def __init__(self, node: Node) -> None:
        found = {leaf.model.label: leaf for leaf in leaves(node)}
        first = next(iter(found.values())).first
        self.first = Leaf(first, first)
        self.others = {label: leaf for label, leaf in found.items() if leaf.model is not first}
        self.by_name: dict[str, Sums] = {}

    def look(self, files: Files, task: Task, start: int, stop: int, merged: torch.Tensor, kept: torch.Tensor) -> None:
        """merged: some rows as computed, float32. kept: the same as they are written."""
        if start and seed_of("diagnostics", task.name, start) % ONE_IN:
            return
        if not start:
            stop = min(stop, max(1, FIRST // max(1, math.prod(task.shape[1:]))))
            merged, kept = merged[:stop], kept[:stop]
        before = value(files, self.first, task, start, stop)
        changed = merged != before
        deltas = {label: value(files, leaf, task, start, stop) - before for label, leaf in self.others.items()}
        rows = torch.stack([before, merged - before, *deltas.values()]).flatten(1).double()
        products = (rows @ rows.T).tolist()
        sums = Sums(merged.numel(), products[0][0], products[1][1])
        sums.changed = float(changed.sum())
        sums.lost = float((changed & (kept.float() == before)).sum())
        for (one, label), (two, other) in combinations_with_replacement(enumerate(deltas, 2), 2):
            sums.products[label, other] = products[one][two]
        if len(deltas) > 1:
            signs = torch.stack([delta.sign() for delta in deltas.values()])
            both = (signs > 0).any(dim=0) & (signs < 0).any(dim=0)
            sums.contested = float(((signs != 0).sum(dim=0) > 1).sum())
            sums.conflicts = float(both.sum())
        self.by_name.setdefault(task.name, Sums()).add(sums)

    def told(self, blocks: dict[str, str]) -> dict[str, Any]:
        """All of it: relative sizes, cosines and shares from 0 to 1."""
        whole, by_block = Sums(), dict[str, Sums]()
        for name in sorted(self.by_name):
            whole.add(self.by_name[name])
            by_block.setdefault(blocks[name], Sums()).add(self.by_name[name])
        told: dict[str, Any] = {
            "relative_delta": _relative(whole.delta, whole.size),
            "relative_delta_by_block": {b: _relative(sums.delta, sums.size) for b, sums in sorted(by_block.items())},
            "lost_to_rounding": _share(whole.lost, whole.changed),
            "lost_to_rounding_by_block": {b: _share(s.lost, s.changed) for b, s in sorted(by_block.items())},
            "relative_delta_of_inputs": {
                label: _relative(whole.products.get((label, label), 0.0), whole.size) for label in self.others
            },
        }
        if len(self.others) > 1:
            told["sign_conflicts"] = _share(whole.conflicts, whole.contested)
            told["cosines"] = {
                f"{one}, {other}": _cosine(whole, one, other) for one, other in combinations(self.others, 2)
            }
        return told


def _relative(square: float, of: float) -> float:
    return round(math.sqrt(square / of), 8) if of else 0.0


def _share(part: float, whole: float) -> float:
    return round(part / whole, 8) if whole else 0.0


def _cosine(sums: Sums, one: str, other: str) -> float:
    norms = math.sqrt(sums.products[one, one] * sums.products[other, other])
    return round(sums.products[one, other] / norms, 8) if norms else 0.0
