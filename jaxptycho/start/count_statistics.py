"""Evidence that stored numbers are no counts: a ceiling, a pedestal, amplitudes or logarithms.

The variance of counts is their mean times the counts of an electron, and more where the specimen
varies them. A pedestal adds to the mean alone. The noise of amplitudes is the same at every
intensity, that of logarithms falls. All this is judged by the noise of single pixels, so data
without noise show none of it.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Num

from ..data import Dataset

FEWEST_SHOTS = 32  # for a variance
FEWEST_PIXELS = 20  # of a group of similar intensity
WHITE = 0.4  # of noise that is independent in neighbouring pixels; smooth signals are below
CEILINGS = 2 ** np.array([6, 8, 10, 12, 14, 16, 24, 32]) - 1
CLIPPED = 10  # counts at a ceiling, more than just below it
DIM = 0.1  # fraction of the pixels, the dimmest
BRIGHT = 0.95  # fraction of the pixels that are dimmer
MOSTLY_EMPTY = 0.6  # fraction of the patterns
FALL = 5.0  # of variance over mean from dark to bright pixels
FEWEST_WRAPPED = 30  # counts just below the largest value
WHITENESS_STEP = 4  # of the patterns, which suffice for it
EVEN = 0.5  # ratio of numbers of counts that are alike
LARGEST_ROOT = 30.0  # whose square is told from its neighbours in single precision


class Ceiling(NamedTuple):
    """Value at which counts end."""

    value: float
    counts: int  # at this value
    pixels: int  # with such counts


class Noise(NamedTuple):
    """A sample of patterns with its mean and variance; `white` if neighbouring pixels differ."""

    values: Num[np.ndarray, "shot pixel"]
    mean: Float[np.ndarray, " pixel"]
    variance: Float[np.ndarray, " pixel"]
    white: bool


def noise_of(data: Dataset) -> Noise:
    """Sample of the valid pixels; noise of few shots is not called white."""
    patterns = np.concatenate(list(data.raw_sample()))
    patterns = np.where(np.isfinite(patterns), patterns, 0)
    valid = np.ones(data.grid.shape, bool) if data.mask is None else np.asarray(data.mask, bool)
    mean = patterns.mean(0, dtype=float)
    variance = patterns.var(0, dtype=float)
    return Noise(
        patterns[:, valid],
        mean[valid],
        variance[valid],
        len(patterns) >= FEWEST_SHOTS and _is_white(patterns[::WHITENESS_STEP] - mean, valid),
    )


def _is_white(deviations: Num[np.ndarray, "shot y x"], valid: Bool[np.ndarray, "y x"]) -> bool:
    """True if Σ(a − b)²/Σ(a² + b²) of neighbouring pixels, 1 if independent, is above `WHITE`."""
    both = valid[:, 1:] & valid[:, :-1]
    left = deviations[:, :, :-1][:, both]
    right = deviations[:, :, 1:][:, both]
    total = float(np.sum(left**2) + np.sum(right**2))
    return float(np.sum((left - right) ** 2)) > WHITE * total


def ceiling(noise: Noise) -> Ceiling | None:
    """Largest value, if many counts have it and few are just below.

    Where it is none at which types and cameras end, these are counts of varying pixels, in noise.
    """
    largest = noise.values.max(initial=0)
    if (noise.values == largest).sum() < CLIPPED:
        return None
    usual = largest in CEILINGS
    varying = noise.values if usual else noise.values[:, noise.variance > 0]
    lower = varying[varying < largest]
    if not len(lower) or not (usual or noise.white):
        return None
    at = varying == largest
    below = int((lower >= min(0.99 * largest, lower.max())).sum())
    if at.sum() < CLIPPED or at.sum() <= 2 * below:
        return None
    return Ceiling(float(largest), int(at.sum()), int(at.any(0).sum()))


def is_constant(noise: Noise) -> bool:
    """True if most of the brighter pixels have one value in all of at least `FEWEST_SHOTS`."""
    bright = noise.mean > DIM * noise.mean.max(initial=0)
    return len(noise.values) >= FEWEST_SHOTS and bool(np.median(noise.variance[bright]) == 0)


def pedestal(noise: Noise) -> float | None:
    """Offset of all counts, where the dimmest pixels have far less noise than their mean demands.

    The line through the variances of the dimmest pixels and of brighter ones meets zero at the
    offset. Where the specimen varies intensities in proportion, v = m + c²m² and the variance of
    the dimmest is at least v₁ = m₁·slope·m₁/(m₁ + m₂); half of that is required to be absent.
    """
    order = np.argsort(noise.mean)
    count = max(FEWEST_PIXELS, round(DIM * len(order)))
    dim = order[:count]
    low = float(np.median(noise.mean[dim]))
    brighter = order[noise.mean[order] > 1.2 * low][:count]
    if not noise.white or low <= 0 or len(brighter) < FEWEST_PIXELS:
        return None
    high = float(np.median(noise.mean[brighter]))
    variance = float(np.median(noise.variance[dim]))
    slope = (float(np.median(noise.variance[brighter])) - variance) / (high - low)
    never_dark = np.quantile(noise.values[:, dim], 0.01) > low / 2
    if not never_dark or slope <= 0 or variance > slope * low * low / (2 * (low + high)):
        return None
    return low - variance / slope


def are_amplitudes(noise: Noise) -> bool:
    """True for roots of whole numbers, or where variance over mean falls with the intensity.

    Dark pixels are compared that hold no count in most patterns: these show no readout noise,
    which would fall as well.
    """
    if _are_roots(noise.values):
        return True
    empty = (noise.values == 0).mean(0)
    dark = (empty > MOSTLY_EMPTY) & (empty < 1)
    bright = noise.mean >= np.quantile(noise.mean, BRIGHT)
    if not noise.white or min(dark.sum(), bright.sum()) < FEWEST_PIXELS:
        return False
    over_mean = [noise.variance[g].mean() / noise.mean[g].mean() for g in (dark, bright)]
    return bool(over_mean[0] > FALL * over_mean[1])


def _are_roots(values: Num[np.ndarray, "shot pixel"]) -> bool:
    """True if the squares of all small values are whole numbers, unlike many of the values."""
    if values.dtype.kind != "f":
        return False
    small = np.unique(values[(values > 0) & (values < LARGEST_ROOT)].astype(float))
    if len(small) < FEWEST_PIXELS:
        return False
    squares = small**2
    whole = np.abs(squares - np.rint(squares)) < 1e-3
    return bool(whole.all() and (np.abs(small - np.rint(small)) > 1e-2).mean() > 0.5)


def modulus(noise: Noise) -> int | None:
    """Number from which counts begin again at zero; None if there is none.

    They reach the largest value of a type without becoming fewer towards it, and the same pixels
    have values at both ends.
    """
    largest = float(noise.values.max(initial=0))
    above = np.flatnonzero((largest <= CEILINGS) & (largest >= 0.998 * CEILINGS))
    if not len(above) or (noise.values[: len(noise.values) // 2 + 1] % 1).any():
        return None
    size = int(CEILINGS[above[0]]) + 1
    part = size // 20
    high = noise.values >= size - part
    below = (noise.values >= size - 2 * part) & ~high
    at_both_ends = high.any(0)
    low = noise.values[:, at_both_ends] < part
    if high.sum() < FEWEST_WRAPPED or high.sum() < EVEN * below.sum():
        return None
    middle = np.abs(noise.values[:, at_both_ends] - size // 2) < part
    return size if low.sum() > EVEN * max(high.sum(), middle.sum()) else None
