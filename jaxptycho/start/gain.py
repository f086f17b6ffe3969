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
from jaxtyping import Bool, Float, Int
from scipy import ndimage

REACH = 3  # half width of the largest square [pixels]
MOMENT_REACH = 2  # of the square that the spread is measured in
COVERED = 0.03  # relative growth of κ₂ with the square, below which the smaller one holds all
SIGNIFICANT = 3.0  # standard errors of such a growth
BINS = 12  # of pixels inside and outside of the disc each, by their mean counts
FEWEST_SHOTS = 6  # in a part
FEWEST_PARTS = 4
FEWEST_PIXELS = 48
FEWEST_QUANTA = 30  # in a bin
SMOOTHED = 7  # pixels, over which counts are averaged that pixels are ordered by
SINGLE = 1.15  # ⟨N²⟩/⟨N⟩ of a camera that counts electrons, at most
MISFIT = 1.5  # of χ² per degree of freedom, above which the brightest bins are left out
FEWEST_BINS = 4
DIMMEST = 3  # bins
# ⟨N⟩ over ⟨N²⟩/⟨N⟩ of cameras, and its spread: relative variances of pulse heights of 0 to ½
PULSE_HEIGHTS = (0.87, 0.1)
OTHER_LAWS = 0.03  # relative error of ⟨N⟩ for other distributions of N
UNSURE = 0.5  # fraction of what a line was continued by, below which squares are alike
SYSTEMATIC = 0.2  # standard error of what a line was continued by, relative to it


class ElectronResponse(NamedTuple):
    """Statistics of the counts that an electron leaves, with standard errors."""

    mean: float  # ⟨N⟩, counts per electron
    error: float
    noise: float  # ⟨N²⟩/⟨N⟩, variance over mean of sums of pixels
    noise_error: float
    spread: float  # rms of an event in each direction [pixels]
    spread_error: float


class Cumulants(NamedTuple):
    """Sums over the shots of each part of a sample, for pixels `REACH` away from the edges."""

    shots: Int[np.ndarray, " part"]
    first: Float[np.ndarray, "part y x"]
    second: Float[np.ndarray, "reach part y x"]  # δx δX in squares of half width 0 … REACH
    third: Float[np.ndarray, "reach part y x"]
    moment: Float[np.ndarray, "part y x"]  # δx Σ δx' (Δy² + Δx²)/2


def cumulants(
    patterns: Float[np.ndarray, "shot y x"], part: Int[np.ndarray, " shot"]
) -> Cumulants | None:
    """Cumulants of counts about the mean of their part, of neighbouring shots; None for too few."""
    sums = []
    for number in np.unique(part):
        block = patterns[part == number]
        n = len(block)
        if n < FEWEST_SHOTS:
            continue
        deviation = block - block.mean(0)
        middle = deviation[:, REACH:-REACH, REACH:-REACH]
        squares = [_square(deviation, reach) for reach in range(REACH + 1)]
        second = [np.einsum("syx,syx->yx", middle, around) for around in squares]
        third = [np.einsum("syx,syx,syx->yx", middle, around, around) for around in squares]
        moment = np.einsum("syx,syx->yx", middle, _second_moment(deviation))
        unbiased = n / (n - 1)
        first = block[:, REACH:-REACH, REACH:-REACH].sum(0)
        third = np.array(third) * unbiased * n / (n - 2)
        sums.append((n, first, np.array(second) * unbiased, third, moment * unbiased))
    if len(sums) < FEWEST_PARTS:
        return None
    n, first, second, third, moment = zip(*sums, strict=True)
    stacked = np.stack(first), np.stack(second, 1), np.stack(third, 1), np.stack(moment)
    return Cumulants(np.array(n), *(v.astype(float) for v in stacked))


def _square(values: Float[np.ndarray, "shot y x"], half: int) -> Float[np.ndarray, "shot v u"]:
    """Sum over the square of half width `half` around every pixel away from the edges."""
    return _weighted(_weighted(values, 1, np.ones(half + 1)), 2, np.ones(half + 1))


def _second_moment(values: Float[np.ndarray, "shot y x"]) -> Float[np.ndarray, "shot v u"]:
    """Sum over the square around every pixel, weighted with (Δy² + Δx²)/2."""
    ones = np.ones(MOMENT_REACH + 1)
    squares = np.arange(MOMENT_REACH + 1) ** 2 / 2
    along_y = _weighted(_weighted(values, 1, squares), 2, ones)
    return along_y + _weighted(_weighted(values, 1, ones), 2, squares)


def _weighted(values: np.ndarray, axis: int, weights: np.ndarray) -> np.ndarray:
    """Sum of pixels up to len(weights) − 1 away along an axis, by distance; edges cut off."""
    size = values.shape[axis] - 2 * REACH
    cut = [slice(None)] * 3
    total = 0
    for distance, weight in enumerate(weights):
        for step in {distance, -distance} if weight else ():
            cut[axis] = slice(REACH + step, REACH + step + size)
            total = total + (values[tuple(cut)] if weight == 1 else weight * values[tuple(cut)])
    return np.asarray(total, values.dtype)


def measured_gain(
    sums: Cumulants,
    dark: Bool[np.ndarray, "y x"],
    mask: Bool[np.ndarray, "y x"] | None,
    least: float = 0.0,
) -> ElectronResponse | None:
    """Response from pixels inside and outside of the disc (`dark`), errors from a jackknife.

    `least` is a lower bound of ⟨N²⟩/⟨N⟩, 1 for whole counts. None where too few electrons were
    seen.
    """
    valid = np.ones(dark.shape, bool) if mask is None else np.asarray(mask, bool)
    clear = ndimage.binary_erosion(valid, np.ones((2 * REACH + 1,) * 2))
    clear, dark = (v[REACH:-REACH, REACH:-REACH] for v in (clear, dark))
    groups = [*_bins(sums, clear & dark), *_bins(sums, clear & ~dark)]
    if not groups:
        return None
    parts = _Parts(
        sums.shots[:, None] * np.array([group.sum() for group in groups]),
        *(_binned(v, groups) for v in sums[1:]),
    )
    is_dark = np.array([bool(dark[group].all()) for group in groups])
    each = [_continued(parts, v, is_dark) for v in parts.second]
    reach = _reach(each)
    noise = each[reach].at_least(least)
    cubed = _continued(parts, parts.third[reach], is_dark)
    square = _continued(parts, parts.moment, is_dark)
    if not (np.isfinite([noise.values, cubed.values, square.values]).all() and noise.values[0] > 0):
        return None
    mean, error = _mean_counts(noise, cubed)
    spread = np.sqrt(np.maximum(square.values, 0) / (2 * noise.values))
    spread_error = np.sqrt((len(spread) - 2) * np.var(spread[1:]))
    excess = float(noise.values[0])
    return ElectronResponse(mean, error, excess, noise.error, float(spread[0]), float(spread_error))


def _mean_counts(noise: "_Continued", cubed: "_Continued") -> tuple[float, float]:
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


class _Parts(NamedTuple):
    """Sums of a sample by part and bin."""

    exposures: Float[np.ndarray, "part bin"]
    first: Float[np.ndarray, "part bin"]
    second: Float[np.ndarray, "reach part bin"]
    third: Float[np.ndarray, "reach part bin"]
    moment: Float[np.ndarray, "part bin"]


def _bins(sums: Cumulants, pixels: Bool[np.ndarray, "y x"]) -> list[Bool[np.ndarray, "y x"]]:
    """Masks of pixels by the counts around them, with equal sums of the roots of these counts.

    Not by their own counts: pixels chosen for few counts would have had few by chance.
    """
    total = np.where(pixels, sums.first.sum(0), 0)
    near = ndimage.uniform_filter(total, SMOOTHED) / np.maximum(
        ndimage.uniform_filter(pixels.astype(float), SMOOTHED), 1e-6
    )
    order = np.flatnonzero(pixels)[np.argsort(near[pixels], kind="stable")]
    reached = np.cumsum(np.sqrt(np.maximum(near.ravel()[order], 0)))
    if len(order) < FEWEST_PIXELS or not reached[-1] > 0:
        return []
    bins = np.minimum((reached / reached[-1] * BINS).astype(int), BINS - 1)
    masks = []
    for number in np.unique(bins):
        group = np.zeros(total.size, bool)
        group[order[bins == number]] = True
        masks.append(group.reshape(total.shape))
    return masks


def _binned(values: np.ndarray, groups: list) -> np.ndarray:
    """Sums [..., bin] of images over the pixels of each group."""
    return np.stack([values[..., group].sum(-1) for group in groups], -1)


class _Continued(NamedTuple):
    """Ratios in the limit of few counts."""

    values: Float[np.ndarray, " n"]  # of all parts, and without each of them
    added: float  # by how much the dimmest bins exceed it
    formal: float  # standard error of the intercept of the line through the bins
    dim_error: float  # of the mean ratio of the dimmest bins

    @property
    def error(self) -> float:
        """Standard error."""
        return float(np.hypot(self.counting_error, self.line_error))

    @property
    def counting_error(self) -> float:
        """Standard error by a jackknife."""
        return float(np.sqrt((len(self.values) - 2) * np.var(self.values[1:])))

    @property
    def line_error(self) -> float:
        """Further error of the line."""
        return max(SYSTEMATIC * self.added, self.formal - self.counting_error, 0.0)

    def at_least(self, bound: float) -> "_Continued":
        """The same with values of at least `bound`, and an error of at most what is above it."""
        values = np.maximum(self.values, bound)
        added = max(0.0, self.added - float(values[0] - self.values[0]))
        room = float(values[0]) + added - bound + self.dim_error
        return self._replace(values=values, added=added, formal=min(self.formal, room))


def _reach(second: list[_Continued]) -> int:
    """Half width of the first square that holds what electrons leave."""
    for reach, (here, larger) in enumerate(pairwise(second)):
        growth = larger._replace(values=larger.values - here.values)
        least = max(COVERED * here.values[0], SIGNIFICANT * growth.counting_error)
        if not growth.values[0] > least + UNSURE * larger.added:
            return reach
    return REACH


def _continued(
    parts: _Parts, values: Float[np.ndarray, "part bin"], dark: Bool[np.ndarray, " bin"]
) -> _Continued:
    """Ratio of `values` to the counts in the limit of few counts.

    From lines in the mean counts with a common intercept, one for pixels inside of the disc and one
    for those outside: varying intensities let them rise. The brightest bins are left out as long as
    lines do not describe the others.
    """
    exposures, first, total = (v.sum(0) for v in (parts.exposures, parts.first, values))
    n = len(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = total / first
        without = (total - values) / (first - parts.first)
        means = (first - parts.first) / (exposures - parts.exposures)
    electrons = first / max(float(np.nanmedian(ratio)), 1e-30)
    sound = np.isfinite(without).all(0) & (electrons > FEWEST_QUANTA)
    if not sound.any():
        return _Continued(np.full(n + 1, np.nan), 0.0, np.inf, np.inf)
    errors = np.sqrt((n - 1) * np.var(without, axis=0))
    errors = np.maximum(errors, 1e-3 * np.abs(ratio) + 1e-12)
    mean = first / exposures
    order = np.flatnonzero(sound)[np.argsort(mean[sound])]
    used, formal = order, np.inf
    for count in range(len(order), min(FEWEST_BINS, len(order)) - 1, -1):
        used = order[:count]
        design, found, formal = _lines(mean[used], ratio[used], errors[used], dark[used])
        misfit = (((ratio[used] - design @ found) / errors[used]) ** 2).sum()
        if misfit < MISFIT * max(count - np.count_nonzero(found), 1):
            break
    some = [(mean, ratio), *zip(means, without, strict=True)]
    found = [_lines(m[used], r[used], errors[used], dark[used])[1][0] for m, r in some]
    dim = used[:DIMMEST]
    weights = errors[dim] ** -2.0
    added = float(np.average(ratio[dim] - found[0], weights=weights))
    return _Continued(np.array(found), max(0.0, added), formal, float(weights.sum() ** -0.5))


def _lines(mean, ratio, errors, dark) -> tuple[np.ndarray, np.ndarray, float]:
    """Design and coefficients of the lines (intercept, slopes), and the intercept's error."""
    columns = [np.ones_like(mean)] + [mean * side for side in (dark, ~dark) if side.any()]
    design = np.stack(columns, 1)
    found = _rising(design, ratio, 1 / errors)
    weighted = design[:, found != 0] / errors[:, None]
    return design, found, float(np.sqrt(np.linalg.pinv(weighted.T @ weighted)[0, 0]))


def _rising(columns, ratio, root) -> np.ndarray:
    """Weighted least squares whose slopes are not negative."""
    kept = np.ones(columns.shape[1], bool)
    while True:
        found = np.zeros(len(kept))
        system = columns[:, kept] * root[:, None]
        found[kept] = np.linalg.lstsq(system, ratio * root, rcond=None)[0]
        falling = kept & (found < 0)
        falling[0] = False
        if not falling.any():
            return found
        kept &= ~falling
