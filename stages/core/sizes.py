"""Rows of several picture sizes: tensors hold one size each."""

from collections.abc import Sequence

Size = tuple[int, int]  # width, height in px


def by_size(sizes: Sequence[Size]) -> list[list[int]]:
    """The row numbers of each size, smallest width first, then height; within a size in the rows' own order."""
    groups: dict[Size, list[int]] = {}
    for row, size in enumerate(sizes):
        groups.setdefault(size, []).append(row)
    return [groups[size] for size in sorted(groups)]
