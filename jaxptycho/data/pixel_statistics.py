"""Sums over a sample of patterns as the camera stores them, pixel by pixel."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Num, Shaped

NOISY = 0.1  # of the brightest pixel, above which pixels show the noise of the counts
HOT_EVENTS = 20  # electrons in the sample, so that a few electrons are not a hot pixel


class PixelStatistics(NamedTuple):
    """Sums over a sample of patterns, zero frequency in the centre."""

    shots: int
    total: Float[np.ndarray, "y x"]
    squares: Float[np.ndarray, "y x"]
    products: Float[np.ndarray, "2 y x"]  # with the next pixel along y and along x, 0 at the end
    flagged: Num[np.ndarray, "y x"]  # patterns with the largest value of the type, or NaN
    changed: Num[np.ndarray, "y x"]  # patterns that differ from the first
    first: Float[np.ndarray, "y x"]
    largest: Float[np.ndarray, "y x"]
    second: Float[np.ndarray, "y x"]  # largest of the other patterns

    @property
    def mean(self) -> Float[np.ndarray, "y x"]:
        """Mean of every pixel."""
        return self.total / self.shots

    def within(self, mask: Bool[np.ndarray, "y x"]) -> "PixelStatistics":
        """The same sums, zero outside `mask`."""
        return PixelStatistics(self.shots, *(np.where(mask, sums, 0) for sums in self[1:]))

    @property
    def variance(self) -> Float[np.ndarray, "y x"]:
        """Variance of every pixel."""
        return np.maximum(self.squares / self.shots - self.mean**2, 0)


def pixel_statistics(blocks: Iterable[Shaped[np.ndarray, "b y x"]]) -> PixelStatistics:
    """Sums over blocks of patterns as stored by the camera."""
    sums: PixelStatistics | None = None
    for block in blocks:
        here = _of_block(block, sums)
        sums = here if sums is None else _added(sums, here)
    if sums is None:
        raise ValueError("got no patterns; give at least one block of them")
    return sums


def _of_block(
    block: Shaped[np.ndarray, "b y x"], before: PixelStatistics | None
) -> PixelStatistics:
    largest = largest_value(block.dtype)
    flagged = ~np.isfinite(block) if largest is None else block == largest
    values = np.where(np.isfinite(block), block, 0).astype(float)
    first = values[0].copy() if before is None else before.first
    products = np.zeros((2, *first.shape))
    products[0, :-1] = np.einsum("byx,byx->yx", values[:, 1:], values[:, :-1])
    products[1, :, :-1] = np.einsum("byx,byx->yx", values[:, :, 1:], values[:, :, :-1])
    changed = (values != first).sum(0)
    sums = values.sum(0)
    squares = np.einsum("byx,byx->yx", values, values)
    highest = values.argmax(0)[None]
    top = np.take_along_axis(values, highest, 0)[0]
    np.put_along_axis(values, highest, -np.inf, 0)
    return PixelStatistics(
        len(block),
        sums,
        squares,
        products,
        flagged.sum(0),
        changed,
        first,
        top,
        values.max(0),
    )


def _added(sums: PixelStatistics, more: PixelStatistics) -> PixelStatistics:
    """Sums over the patterns of two samples."""
    return PixelStatistics(
        sums.shots + more.shots,
        sums.total + more.total,
        sums.squares + more.squares,
        sums.products + more.products,
        sums.flagged + more.flagged,
        sums.changed + more.changed,
        sums.first,
        np.maximum(sums.largest, more.largest),
        np.maximum(np.minimum(sums.largest, more.largest), np.maximum(sums.second, more.second)),
    )


def noise_over_mean(seen: PixelStatistics) -> float:
    """Median variance over mean of the illuminated pixels, 0 without any."""
    mean = np.maximum(seen.mean, 0)
    bright = mean > NOISY * mean.max()
    return float(np.median(seen.variance[bright] / mean[bright])) if bright.any() else 0.0


def dim_noise(seen: PixelStatistics) -> float:
    """Median variance over mean of the dimmer half of the pixels: the counts of an electron.

    0 without noise. A specimen varies their counts least.
    """
    mean = seen.mean
    lit = mean > 0
    if not lit.any():
        return 0.0
    dim = lit & (mean <= np.median(mean[lit]))
    return float(np.median(seen.variance[dim] / mean[dim]))


def largest_value(dtype: np.dtype) -> int | None:
    """Value with which cameras flag pixels in this type; None if it may be a count."""
    return int(np.iinfo(dtype).max) if dtype.kind in "ui" else None


def steady(seen: PixelStatistics) -> Bool[np.ndarray, "y x"]:
    """Pixels counting at least `HOT_EVENTS` electrons, n = mean² · shots / variance."""
    mean = seen.mean
    return (mean != 0) & (HOT_EVENTS * seen.variance <= mean**2 * seen.shots) | (seen.shots == 1)
