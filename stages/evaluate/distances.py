"""How two sets of pictures differ, by their features: kernel distance, precision, recall, diversity.

Features are brought to one scale first: centred on the real pictures, and divided by one deviation for each kind of
feature (one for each feature would blow up those that hardly vary). Shapes: N and M pictures, D features.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from scipy.stats import binomtest, bootstrap

from stages.core.draws import seed_of
from stages.evaluate.classical import Features

RESAMPLES = 1000
Interval = tuple[float, float]
Weights = NDArray[np.float64]


class Scale:
    """What brings features to one scale: mean (D,) and deviation (D,) of the real pictures'."""

    def __init__(self, real: Features, kinds: Sequence[int]) -> None:
        self.mean = real.mean(axis=0)
        parts = np.split(real.var(axis=0), np.cumsum(kinds)[:-1])
        self.deviation = np.concatenate([np.full(len(part), np.sqrt(part.mean()) + 1e-6) for part in parts])

    def apply(self, features: Features) -> Features:
        return np.asarray((features - self.mean) / self.deviation)


def interval(statistic: Callable[..., float], *sizes: int, seed: int, name: str) -> Interval | None:
    """The 95% bootstrap interval of a statistic of weights: how often each picture of each set is drawn.

    Percentiles of RESAMPLES draws of the pictures; what isn't a picture (prompts, timesteps, training) stays fixed.
    None where a set has less than two pictures.
    """
    if min(sizes) < 2:
        return None

    def of_rows(*chosen: NDArray[np.int64]) -> float:
        counts = [np.bincount(rows, minlength=size).astype(float) for rows, size in zip(chosen, sizes, strict=True)]
        return statistic(*counts)

    generator = np.random.default_rng(seed_of(seed, "interval", name))
    found = bootstrap(
        [np.arange(size) for size in sizes],
        of_rows,
        n_resamples=RESAMPLES,
        vectorized=False,
        method="percentile",
        rng=generator,
    ).confidence_interval
    return float(found.low), float(found.high)


def weighted_mean(values: Weights, weights: Weights) -> float:
    """Of values that were drawn so often."""
    return float(values @ weights / weights.sum())


def share_interval(values: Weights) -> Interval | None:
    """The 95% interval of a share, of 0s and 1s (Wilson 1927): of none among 32 it still says up to 0.11."""
    if not len(values):
        return None
    found = binomtest(int(values.sum()), len(values)).proportion_ci(method="wilson")
    return max(0.0, float(found.low)), min(1.0, float(found.high))


class KernelDistance:
    """Squared maximum mean discrepancy of two sets, unbiased: 0 on average if they are alike, can be below.

    Kernel (x.y / D + 1)^3, as KID's (Binkowski et al., arXiv 1801.01401, section 4), of scaled features (N, D), (M, D).
    A call with weights leaves out the pairs of a picture with itself, so that a picture drawn twice is no likeness.
    Needs two pictures a set (ValueError).
    """

    def __init__(self, real: Features, drawn: Features) -> None:
        if min(len(real), len(drawn)) < 2:
            raise ValueError("needs at least two pictures in each set")
        self.real, self.drawn, self.across = _kernel(real, real), _kernel(drawn, drawn), _kernel(real, drawn)
        self.ones = np.ones(len(real)), np.ones(len(drawn))

    def __call__(self, real: Weights | None = None, drawn: Weights | None = None) -> float:
        x, y = (self.ones[0] if real is None else real), (self.ones[1] if drawn is None else drawn)
        return _apart(self.real, x) + _apart(self.drawn, y) - 2 * float(x @ self.across @ y / (x.sum() * y.sum()))


def _kernel(x: Features, y: Features) -> Features:
    return np.asarray((x @ y.T / x.shape[1] + 1) ** 3, dtype=np.float64)


def _apart(kernel: Features, weights: Weights) -> float:
    """The mean over pairs of different pictures."""
    pairs = weights.sum() ** 2 - (weights**2).sum()
    return float((weights @ kernel @ weights - (weights**2) @ np.diag(kernel)) / pairs) if pairs else 0.0


def inside(points: Features, manifold: Features, neighbours: int) -> Weights:
    """Which points lie among others: 1 within the ball of some picture up to its k-th nearest neighbour, else 0.

    Of drawn among real pictures the mean is precision, of real among drawn ones recall (Kynkaanniemi et al., arXiv
    1904.06991, equation 1). manifold: (N, D), N > neighbours.
    """
    within = cdist(manifold, manifold)
    np.fill_diagonal(within, np.inf)
    radii = np.partition(within, neighbours - 1, axis=1)[:, neighbours - 1]
    return np.asarray((cdist(points, manifold) <= radii).any(axis=1), dtype=np.float64)


def vendi(drawn: Features) -> float:
    """How many different pictures a set amounts to, from 1 to N (Friedman and Dieng, arXiv 2210.02410).

    The Vendi score: the exponential of the entropy of the eigenvalues of K / N, K the cosine similarities.
    """
    lengths = np.linalg.norm(drawn, axis=1, keepdims=True)
    unit = drawn / np.where(lengths > 0, lengths, 1)
    values = np.linalg.eigvalsh(unit @ unit.T / len(unit))
    values = values[values > 1e-12]
    return float(np.exp(-(values * np.log(values)).sum()))
