"""Clusters of hot pixels: far brighter, or far noisier, than all that is around them.

Reflections are discs of the size of the bright field, and what varies within a pattern varies in
neighbouring pixels alike. A cluster of defective pixels is smaller, has sharp edges, and its pixels
fluctuate separately.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import scipy
from jaxtyping import Bool, Float

from .pixel_statistics import PixelStatistics, dim_noise, steady

WIDTH = 6  # pixels, which no cluster has on both sides
LARGEST = 25  # pixels
CONTRAST = 10.0  # over what is around
SMALLER = 4  # times smaller than the bright field is a cluster
BRIGHT = 0.3  # of the largest mean, within the bright field
CENTRAL = 1 / 6  # of the detector, around its middle: there may be a narrow direct beam
FEWEST_SHOTS = 32  # for a correlation of two pixels
CORRELATED = 0.3  # pixels that show the same
MOST = 0.5  # of the pixels of a cluster
NOISY = 0.9  # fraction of the pixels that vary less than a noisy one
DARK = 0.5  # fraction of the pixels, the darkest
SQUARE = np.ones((3, 3))


class HotClusters(NamedTuple):
    """Pixels in clusters of defective ones."""

    bright: Bool[np.ndarray, "y x"]
    noisy: Bool[np.ndarray, "y x"]


def hot_clusters(seen: PixelStatistics, valid: Bool[np.ndarray, "y x"]) -> HotClusters:
    """Clusters of at most `LARGEST` hot pixels, and of noisy ones, among the `valid` pixels."""
    nothing = HotClusters(np.zeros_like(valid), np.zeros_like(valid))
    if seen.shots < FEWEST_SHOTS or min(valid.shape) < 2 * WIDTH:
        return nothing
    valid = valid & (seen.mean >= 0)
    bright = _bright_clusters(seen, valid)
    return HotClusters(bright, _noisy_clusters(seen, valid & ~bright))


def _bright_clusters(seen: PixelStatistics, valid) -> Bool[np.ndarray, "y x"]:
    mean = np.where(valid, seen.mean, 0)
    dark = float(mean[valid & (mean <= np.quantile(mean[valid], DARK))].mean())
    regions = list(_clusters(mean, dark, valid))
    sharp = np.any([np.zeros_like(valid), *regions], axis=0)
    rest = np.where(sharp, 0, mean)
    field = int((rest > BRIGHT * rest.max()).sum())
    central = [int(region.sum()) for region in regions if _is_central(region)]
    field = min([field, *central])
    counted = steady(seen)
    hot = [r for r in regions if r.sum() * SMALLER < field and counted[r].mean() > MOST]
    return np.any([np.zeros_like(valid), *hot], axis=0)


def _noisy_clusters(seen: PixelStatistics, valid) -> Bool[np.ndarray, "y x"]:
    lit = valid & (seen.mean > 0)
    noise = np.where(lit, seen.variance / np.where(lit, seen.mean, 1), 0)
    counted = steady(seen) & (seen.variance > np.quantile(seen.variance[valid], NOISY))
    noisy = [
        region
        for region in _clusters(noise, dim_noise(seen), valid)
        if counted[region].mean() > MOST and _fluctuate_separately(seen, region)
    ]
    return np.any([np.zeros_like(valid), *noisy], axis=0)


def _clusters(
    image: Float[np.ndarray, "y x"], least: float, valid: Bool[np.ndarray, "y x"]
) -> Iterator[Bool[np.ndarray, "y x"]]:
    """Small regions that exceed `CONTRAST` times `least` and all that is around them."""
    around = scipy.ndimage.grey_opening(image, size=(WIDTH, WIDTH))
    labels: np.ndarray = scipy.ndimage.label(  # pyright: ignore
        valid & (image > CONTRAST * np.maximum(around, least)), SQUARE
    )[0]
    for number in range(1, labels.max() + 1):
        region = labels == number
        region &= image > image[region].max() / CONTRAST
        ring = scipy.ndimage.binary_dilation(region, SQUARE) & valid & ~region
        if not 1 < region.sum() <= LARGEST or not ring.any():
            continue
        if np.median(image[region]) > CONTRAST * max(image[ring].max(), least):
            yield region


def _is_central(region: Bool[np.ndarray, "y x"]) -> bool:
    middle = np.array(region.shape) / 2
    away = np.abs(np.argwhere(region).mean(0) - middle)
    return bool((away < CENTRAL * np.array(region.shape)).all())


def _fluctuate_separately(seen: PixelStatistics, region: Bool[np.ndarray, "y x"]) -> bool:
    """True if neighbouring pixels of a region are uncorrelated."""
    mean, variance = seen.mean, seen.variance
    found = []
    for axis, product in enumerate(seen.products):
        there = np.roll(region, -1, axis) & region
        there[(-1, slice(None)) if axis == 0 else (slice(None), -1)] = False
        covariance = product / seen.shots - mean * np.roll(mean, -1, axis)
        size = np.sqrt(variance * np.roll(variance, -1, axis))
        found += list(covariance[there] / np.maximum(size[there], 1e-30))
    return bool(found) and bool(np.mean(found) < CORRELATED)
