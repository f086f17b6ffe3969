"""Ratios of cumulants in the limit of few counts, where intensities that vary add nothing."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from .cumulants import Cumulants

BINS = 12  # of pixels inside and outside of the disc each, by their mean counts
FEWEST_PIXELS = 48
FEWEST_QUANTA = 30  # in a bin
SMOOTHED = 7  # pixels, over which counts are averaged that pixels are ordered by
MISFIT = 1.5  # of χ² per degree of freedom, above which the brightest bins are left out
FEWEST_BINS = 4
DIMMEST = 3  # bins
SYSTEMATIC = 0.2  # standard error of what a line was continued by, relative to it


class BinnedSums(NamedTuple):
    """Sums of a sample by part and bin of pixels."""

    exposures: Float[np.ndarray, "part bin"]
    first: Float[np.ndarray, "part bin"]
    second: Float[np.ndarray, "reach part bin"]
    third: Float[np.ndarray, "reach part bin"]
    moment: Float[np.ndarray, "part bin"]
    dark: Bool[np.ndarray, " bin"]  # outside of the disc


def binned_sums(
    sums: Cumulants, clear: Bool[np.ndarray, "y x"], dark: Bool[np.ndarray, "y x"]
) -> BinnedSums | None:
    """Sums over bins of the `clear` pixels by their counts, inside and outside of the disc."""
    groups = [*_bins(sums, clear & dark), *_bins(sums, clear & ~dark)]
    if not groups:
        return None
    exposures = sums.shots[:, None] * np.array([group.sum() for group in groups])
    is_dark = np.array([bool(dark[group].all()) for group in groups])
    first, second, third, moment = (_sums_over(v, groups) for v in sums[1:])
    return BinnedSums(exposures, first, second, third, moment, is_dark)


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


def _sums_over(values: np.ndarray, groups: list) -> np.ndarray:
    """Sums [..., bin] of images over the pixels of each group."""
    return np.stack([values[..., group].sum(-1) for group in groups], -1)


class Continued(NamedTuple):
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

    def at_least(self, bound: float) -> "Continued":
        """The same with values of at least `bound`, and an error of at most what is above it."""
        values = np.maximum(self.values, bound)
        added = max(0.0, self.added - float(values[0] - self.values[0]))
        room = float(values[0]) + added - bound + self.dim_error
        return self._replace(values=values, added=added, formal=min(self.formal, room))


def continued(parts: BinnedSums, values: Float[np.ndarray, "part bin"]) -> Continued:
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
        return Continued(np.full(n + 1, np.nan), 0.0, np.inf, np.inf)
    errors = np.sqrt((n - 1) * np.var(without, axis=0))
    errors = np.maximum(errors, 1e-3 * np.abs(ratio) + 1e-12)
    mean = first / exposures
    order = np.flatnonzero(sound)[np.argsort(mean[sound])]
    used, formal = order, np.inf
    for count in range(len(order), min(FEWEST_BINS, len(order)) - 1, -1):
        used = order[:count]
        design, found, formal = _lines(mean[used], ratio[used], errors[used], parts.dark[used])
        misfit = (((ratio[used] - design @ found) / errors[used]) ** 2).sum()
        if misfit < MISFIT * max(count - np.count_nonzero(found), 1):
            break
    some = [(mean, ratio), *zip(means, without, strict=True)]
    found = [_lines(m[used], r[used], errors[used], parts.dark[used])[1][0] for m, r in some]
    dim = used[:DIMMEST]
    weights = errors[dim] ** -2.0
    added = float(np.average(ratio[dim] - found[0], weights=weights))
    return Continued(np.array(found), max(0.0, added), formal, float(weights.sum() ** -0.5))


def _lines(mean, ratio, errors, dark) -> tuple[np.ndarray, np.ndarray, float]:
    """Design and coefficients of the lines (intercept, slopes), and the intercept's error."""
    columns = [np.ones_like(mean)] + [mean * side for side in (dark, ~dark) if side.any()]
    design = np.stack(columns, 1)
    found = _rising(design, ratio, 1 / errors)
    kept = found != 0
    kept[0] = True
    weighted = design[:, kept] / errors[:, None]
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
