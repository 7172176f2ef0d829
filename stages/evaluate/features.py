"""Picture features without weights, and the distance of two sets of them.

What they see: where which colour is, which way edges run, how fine the detail
is. What they don't see: what a picture shows. Figures of two extractors never
compare; hence the name and version beside each.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

EXTRACTOR = "classical-1"
SIDE, CELLS, ORIENTATIONS, RINGS = 64, 4, 8, 8

KINDS = (CELLS**2 * 3, CELLS**2 * 3, CELLS**2 * ORIENTATIONS, RINGS)  # how many features of each kind

Features = NDArray[np.float64]


def features_of(image: Image.Image) -> Features:
    """Colours of a 4 x 4 grid (mean, deviation), gradient orientations in it, radial spectrum: (232,).

    Histograms of oriented gradients: Dalal and Triggs, CVPR 2005, unsigned, without block normalisation.
    """
    pixels = np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC), dtype=np.float64) / 255
    cells = _cells(pixels)
    grey = pixels @ np.array([0.299, 0.587, 0.114])
    down, right = np.gradient(grey)
    strength, angle = np.hypot(down, right), np.arctan2(down, right) % np.pi
    part = np.minimum((angle / np.pi * ORIENTATIONS).astype(int), ORIENTATIONS - 1)
    oriented = _cells(np.eye(ORIENTATIONS)[part] * strength[..., None])
    return np.concatenate(
        [cells.mean(axis=1).ravel(), cells.std(axis=1).ravel(), oriented.mean(axis=1).ravel(), _spectrum(grey)]
    )


def _cells(planes: NDArray[np.float64]) -> NDArray[np.float64]:
    """(SIDE, SIDE, K) as (cells, pixels of a cell, K)."""
    side, depth = SIDE // CELLS, planes.shape[2]
    grid = planes.reshape(CELLS, side, CELLS, side, depth).transpose(0, 2, 1, 3, 4)
    return grid.reshape(CELLS * CELLS, side * side, depth)


def _spectrum(grey: NDArray[np.float64]) -> Features:
    """log(1 + power) averaged over rings of equal width from 0 to the Nyquist frequency, (RINGS,)."""
    power = np.log1p(np.abs(np.fft.fft2(grey - grey.mean())))
    frequency = np.fft.fftfreq(SIDE)
    radius = np.hypot(frequency[:, None], frequency[None, :])
    ring = np.minimum((radius / 0.5 * RINGS).astype(int), RINGS - 1)
    summed = np.bincount(ring.ravel(), power.ravel(), RINGS)
    return np.asarray(summed / np.bincount(ring.ravel(), minlength=RINGS), dtype=np.float64)


def kernel_distance(real: Features, drawn: Features) -> float:
    """Squared maximum mean discrepancy of two sets of features (N, D), (M, D), unbiased; 0 if they are alike.

    Kernel (x.y / D + 1)^3 as in KID (Binkowski et al., arXiv 1801.01401, section 4),
    on features centred on the real ones and scaled by kind (colour, edges, spectrum).
    Can be slightly negative.
    Needs two pictures a set (ValueError).
    """
    if min(len(real), len(drawn)) < 2:
        raise ValueError("needs at least two pictures in each set")
    mean, spread = real.mean(axis=0), _spread(real)
    x, y = (real - mean) / spread, (drawn - mean) / spread
    xx, yy, xy = (_kernel(*pair) for pair in ((x, x), (y, y), (x, y)))
    within = sum((k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in (xx, yy))
    return float(within - 2 * xy.mean())


def _spread(real: Features) -> Features:
    """One deviation for each kind of feature, (D,): one for each feature would blow up those that hardly vary."""
    variance = real.var(axis=0)
    kinds = np.split(variance, np.cumsum(KINDS)[:-1]) if len(variance) == sum(KINDS) else [variance]
    return np.concatenate([np.full(len(kind), np.sqrt(kind.mean()) + 1e-6) for kind in kinds])


def _kernel(x: Features, y: Features) -> Features:
    return np.asarray((x @ y.T / x.shape[1] + 1) ** 3, dtype=np.float64)
