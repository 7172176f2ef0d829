"""Which rows a batch holds: a function of its number, so that a resumed run needs no state to go on.

Every row comes once an epoch in an order drawn for that epoch, and no batch mixes picture sizes. Batches don't end
with epochs: a batch may hold the last rows of one and the first of the next. With several sizes each has epochs of
its own, and takes its turn as often as its rows ask for: the j-th batch of a size of n rows is due at (j + 1/2) B / n
epochs, and batches come in the order in which they are due. After any number of batches, a size has been seen as
often as all others but for about one batch; one of fewer rows than a batch waits until it has filled one.
"""

from collections.abc import Sequence
from fractions import Fraction

from stages.core.noise import permutation


def rows_of(batch: int, batch_size: int, groups: Sequence[Sequence[int]], seed: int) -> list[int]:
    """The rows of the batch numbered `batch`, from one of the groups; each group holds the rows of one size."""
    turn, number = turn_of(batch, batch_size, [len(group) for group in groups])
    group = groups[turn]
    samples = range(number * batch_size, (number + 1) * batch_size)
    return [group[row_of(sample, len(group), seed)] for sample in samples]


def turn_of(batch: int, batch_size: int, lengths: Sequence[int]) -> tuple[int, int]:
    """Which group the batch is of, and its number among that group's batches."""
    total = sum(lengths)

    def due_before(epochs: Fraction) -> list[int]:
        """How many batches of each group are due before a point in time: the j with (j + 1/2) B / n < epochs."""
        return [max(0, -((1 - 2 * epochs * length / batch_size) // 2)) for length in lengths]

    # A whole number of groups' half batches below the batch is surely due after this point; few are left to sort.
    start = max(Fraction(0), Fraction((batch - len(lengths)) * batch_size, total))
    counts = due_before(start)
    end = Fraction((batch + len(lengths) + 1) * batch_size, total)
    coming = sorted(
        ((Fraction((2 * number + 1) * batch_size, 2 * length), group), number)
        for group, (length, first, last) in enumerate(zip(lengths, counts, due_before(end), strict=True))
        for number in range(first, last)
    )
    (_, group), number = coming[batch - sum(counts)]
    return group, number


def row_of(sample: int, rows: int, seed: int) -> int:
    """Which of so many rows the sample numbered `sample` is: each epoch sees every row once, in an order of its own."""
    epoch, place = divmod(sample, rows)
    return _epoch_order(rows, seed, epoch)[place]


_orders: dict[tuple[int, int], tuple[int, list[int]]] = {}


def _epoch_order(rows: int, seed: int, epoch: int) -> list[int]:
    """The order of one epoch; only the last one asked for is kept, of so many rows."""
    known = _orders.get((rows, seed))
    if known is None or known[0] != epoch:
        known = epoch, permutation(rows, seed, "order", epoch).tolist()
        _orders[rows, seed] = known
    return known[1]
