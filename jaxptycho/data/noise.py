"""Noise of a camera, from a sample of its patterns."""

import math

import numpy as np
from jaxtyping import Bool, Float

from .bad_pixels import PixelStatistics
from .dataset import Dataset

MIN_EXCESS = 1.6  # variance over mean of dim pixels, of which the scan causes at most a few tenths
MIN_QUANTA = 20  # quanta of a pixel in the sample
DIM_PIXELS = 30


def counts_per_quantum(data: Dataset) -> float:
    """Counts per electron or photon in a pixel; 1 without evidence of more."""
    exact = unit(data)
    return excess_variance(data.sample, data.mask) if exact is None else exact


def unit(data: Dataset) -> float | None:
    """Common divisor of all counts, None if it is 1."""
    block = next(data.raw_sample())
    block = block.reshape(len(block), -1)
    keep = slice(None) if data.mask is None else data.mask.ravel()
    values = np.unique(block[:, keep])
    values = values[(values > 0) & np.isfinite(values)].astype(float)
    if len(values) < 5:
        return None
    found = values[0]
    multiples = values / found
    whole = np.abs(multiples - np.rint(multiples)) < 1e-3 * np.maximum(multiples, 1)
    # not just a few values of a wide range
    dense = np.rint(multiples[len(values) // 2]) < 4 * len(values)
    if whole.all() and dense and not math.isclose(found, 1, rel_tol=1e-3):
        return float(found)
    return None


def excess_variance(sample: PixelStatistics, mask: Bool[np.ndarray, "y x"] | None) -> float:
    """Counts per quantum, from the excess variance of dim pixels; 1 for single quanta.

    The contribution of the specimen to variance over mean is proportional to the mean: the value
    at mean 0 of a line through pixels with a quantum in a few patterns is that of the camera.
    """
    mean, variance = _moments(sample, mask)
    excess = variance / np.maximum(mean, 1e-30)
    dim = (mean * sample.shots > MIN_QUANTA * excess) & (mean < excess)
    if dim.sum() < DIM_PIXELS:
        return 1.0
    slope, intercept = np.polyfit(mean[dim], excess[dim], 1)
    middle = float(np.median(excess[dim]))
    found = min(float(intercept), middle) if slope > 0 else middle
    return found if found > MIN_EXCESS else 1.0


def _moments(
    sample: PixelStatistics, mask: Bool[np.ndarray, "y x"] | None
) -> tuple[Float[np.ndarray, "y x"], Float[np.ndarray, "y x"]]:
    """Mean and variance of every pixel over the sample, zero where it is masked."""
    mean = sample.total / sample.shots
    variance = np.maximum(sample.squares / sample.shots - mean**2, 0)
    visible = True if mask is None else mask
    return np.where(visible, np.maximum(mean, 0), 0), np.where(visible, variance, 0)
