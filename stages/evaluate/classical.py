"""Picture features without weights.

What they see: where which colour is, which way edges run, how fine the detail is. What they don't see: what a picture
shows.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

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
