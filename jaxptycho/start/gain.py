"""Counts of an electron and their spread, from the cumulants of the counts.

An electron leaves N counts over some neighbouring pixels. With x the counts of a pixel and X those
of a square around it that holds all counts of an event, κ₁ = ⟨x⟩ = λ⟨N⟩, κ₂ = ⟨δx δX⟩ = λ⟨N²⟩ and
κ₃ = ⟨δx δX²⟩ = λ⟨N³⟩ (compound Poisson process). The factorial moments Mₙ of N give
⟨N⟩ = 2 M₂/M₁ − M₃/M₂: exact where N is constant, Poisson or negative binomial, and within a few
percent for a gamma distribution. Intensities that vary from shot to shot add terms of higher order
in λ: ratios are continued to few electrons by lines in κ₁, and deviations are taken from the mean
of neighbouring shots.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool
from scipy import ndimage

from .cumulants import REACH, Cumulants
from .few_counts import Continued, binned_sums, continued

COVERED = 0.03  # relative growth of κ₂ with the square, below which the smaller one holds all
SIGNIFICANT = 3.0  # standard errors of such a growth
UNSURE = 0.5  # fraction of what a line was continued by, below which squares are alike
NOISELESS = 1e-6  # variance over mean, relative to the mean: rounding of single precision
SINGLE = 1.15  # ⟨N²⟩/⟨N⟩ of a camera that counts electrons, at most
# ⟨N⟩ over ⟨N²⟩/⟨N⟩ of cameras, and its spread: relative variances of pulse heights of 0 to ½
PULSE_HEIGHTS = (0.87, 0.1)
OTHER_LAWS = 0.03  # relative error of ⟨N⟩ for other distributions of N


class ElectronResponse(NamedTuple):
    """Statistics of the counts that an electron leaves, with standard errors."""

    mean: float  # ⟨N⟩, counts per electron
    error: float
    noise: float  # ⟨N²⟩/⟨N⟩, variance over mean of sums of pixels
    noise_error: float
    spread: float  # rms of an event in each direction [pixels]
    spread_error: float


def measured_gain(
    sums: Cumulants,
    dark: Bool[np.ndarray, "y x"],
    mask: Bool[np.ndarray, "y x"] | None,
    least: float = 0.0,
) -> ElectronResponse | None:
    """Response from pixels inside and outside of the disc (`dark`), errors from a jackknife.

    `least` is a lower bound of ⟨N²⟩/⟨N⟩, 1 for whole counts. None where too few electrons were
    seen, or counts without noise.
    """
    valid = np.ones(dark.shape, bool) if mask is None else np.asarray(mask, bool)
    clear = ndimage.binary_erosion(valid, np.ones((2 * REACH + 1,) * 2))
    clear, dark = (v[REACH:-REACH, REACH:-REACH] for v in (clear, dark))
    parts = binned_sums(sums, clear, dark)
    if parts is None:
        return None
    each = [continued(parts, v) for v in parts.second]
    reach = _reach(each)
    noise = each[reach].at_least(least)
    cubed = continued(parts, parts.third[reach])
    square = continued(parts, parts.moment)
    if not np.isfinite([noise.values, cubed.values, square.values]).all():
        return None
    first, variance = parts.first.sum(), parts.second[0].sum()
    if variance <= NOISELESS * first**2 / parts.exposures.sum():
        return None
    mean, error = _mean_counts(noise, cubed)
    # whole counts that fall into pixels one by one: a count has no distance from itself
    pairs = noise.values - (least if noise.values[0] > SINGLE else 0.0)
    spread = np.sqrt(np.maximum(square.values, 0) / (2 * pairs))
    spread_error = np.sqrt((len(spread) - 2) * np.var(spread[1:]))
    excess = float(noise.values[0])
    return ElectronResponse(mean, error, excess, noise.error, float(spread[0]), float(spread_error))


def _mean_counts(noise: Continued, cubed: Continued) -> tuple[float, float]:
    """⟨N⟩ and its error: from the factorial moments, and from what is usual (`PULSE_HEIGHTS`)."""
    ratio = float(noise.values[0])
    if ratio < SINGLE:
        return ratio, noise.error
    second = noise.values - 1
    third = cubed.values - 3 * noise.values + 2
    measured = np.clip(2 * second - third / second, 0.3 * ratio, 1.1 * ratio)
    counting = np.sqrt((len(measured) - 2) * np.var(measured[1:]))
    line = np.hypot(noise.line_error, cubed.line_error / second[0])
    line = np.hypot(line, OTHER_LAWS * ratio)
    usual, spread = (ratio * share for share in PULSE_HEIGHTS)
    own = 1 / (counting**2 + line**2 + 1e-12)
    prior = spread**-2.0
    mean = (own * measured[0] + prior * usual) / (own + prior)
    return float(mean), float(np.hypot((own + prior) ** -0.5, noise.line_error * mean / ratio))


def _reach(second: list[Continued]) -> int:
    """Half width of the first square that holds what electrons leave."""
    for reach, (here, larger) in enumerate(pairwise(second)):
        growth = larger._replace(values=larger.values - here.values)
        least = max(COVERED * here.values[0], SIGNIFICANT * growth.counting_error)
        if not growth.values[0] > least + UNSURE * larger.added:
            return reach
    return REACH
