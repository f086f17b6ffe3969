"""Pixels whose response differs from that of their neighbours, from the mean and the noise.

The mean pattern, divided by the fitted disc, is smooth over a few pixels; a pixel of another gain,
a dead, hot or flickering one departs from its neighbours by more than counting noise and the
texture around it.
"""

import numpy as np
from jaxtyping import Bool, Float
from numpy.lib.stride_tricks import sliding_window_view
from scipy.special import expit

from .disc import Disc

DEVIATION = 7.0  # standard deviations from the neighbours
LEAST_CHANGE = 0.12  # relative
NEIGHBOURS = 2  # reach of the neighbours that a pixel is compared with
TEXTURE = 5  # reach of those whose scatter is the texture
RIM = 3.0  # widths of the edge, beyond which a pixel is off the rim
DISPLACED = 0.3  # pixels, by which the rim may be elsewhere than fitted
PASSES = 2
ISOLATED = 2.5  # times the third largest departure of the neighbours
NOISY = 3.0  # ratio of variances
FEWEST_NEIGHBOURS = 8
DIRECT_BEAM = 2  # pixels from zero frequency
TRIMMED = 2  # neighbours at either end


def odd_pixels(
    total: Float[np.ndarray, "y x"],
    variance: Float[np.ndarray, "y x"],
    mask: Bool[np.ndarray, "y x"],
    disc: Disc | None,
    noise: float,
) -> dict[str, Bool[np.ndarray, "y x"]]:
    """Pixels of `mask` by kind of defect: weak, strong, noisy.

    `total` are the counts of all patterns, `variance` that of a sample relative to its mean,
    `noise` the variance over mean of the counts of electrons. Where no disc is found, a bright
    pixel in the middle is the direct beam.
    """
    base = np.ones(total.shape) if disc is None else disc.pattern(total.shape)
    base = np.maximum(base / base.max(), 1e-3)
    slope, rim = np.zeros(total.shape), np.zeros(total.shape, bool)
    if disc is not None:
        distance = disc.distance(total.shape)
        rim = np.abs(distance) < RIM * disc.edge + 1.5
        f = expit(-distance / disc.edge)
        slope = (1 - disc.outside / disc.inside) * f * (1 - f) / disc.edge
    valid = mask.copy()
    score = change = np.zeros(total.shape)
    for _ in range(PASSES):
        score, change = _departure(total, base, slope, valid, rim, noise)
        valid = mask & (np.abs(score) < DEVIATION)
    odd = mask & (np.abs(score) > DEVIATION) & (np.abs(change) > LEAST_CHANGE)
    odd &= np.abs(score) > ISOLATED * _ranked(np.abs(score), NEIGHBOURS, 3)
    strong = odd & (change > 0)
    if disc is None:
        strong &= ~_middle(total.shape)
    found = {
        "weak, below their neighbours": odd & (change < 0),
        "strong, above their neighbours": strong,
        "noisier than their neighbours": mask & ~odd & _noisy(variance, valid, NOISY * noise),
    }
    return {what: pixels for what, pixels in found.items() if pixels.any()}


def _middle(shape: tuple[int, int]) -> Bool[np.ndarray, "y x"]:
    """Pixels around zero frequency."""
    y, x = (np.abs(np.arange(n) - n // 2) <= DIRECT_BEAM for n in shape)
    return y[:, None] & x


def _departure(total, base, slope, valid, rim, noise):
    """Difference from the neighbours in standard deviations, and relative to them."""
    flat = np.where(valid, total / base, np.nan)
    near = _trimmed_mean(flat, NEIGHBOURS)
    enough = np.isfinite(near)
    expected = np.where(enough, near, 1.0) * base
    # square roots of counts have a variance of noise/4 at every mean (Anscombe, Biometrika 1948)
    unit = max(noise, 1e-12)
    quarter = 3 * unit / 8
    counting = 2 * (np.sqrt(np.maximum(total, 0) + quarter) - np.sqrt(expected + quarter))
    misplaced = DISPLACED * slope / base * np.sqrt(expected)
    counting = counting / np.sqrt(unit * (1 + 1 / 16) + misplaced**2)
    texture = np.ones(total.shape)
    for zone in (rim, ~rim):
        deviation = np.where(valid & zone & enough, np.abs(counting), np.nan)
        around = 1.4826 * _median(deviation, TEXTURE)
        texture = np.where(zone, np.fmax(around, 1.0), texture)
    score = np.where(enough, counting / texture, 0.0)
    return score, np.where(enough, total / np.maximum(expected, 1e-9) - 1, 0.0)


def _noisy(variance, valid, least: float) -> Bool[np.ndarray, "y x"]:
    """Pixels of far more variance over mean than their neighbours.

    Reflections of grains in a part of the scan vary as much, in several neighbouring pixels.
    """
    ratio = np.where(valid & (variance > 0), np.log(np.maximum(variance, 1e-12)), np.nan)
    deviation = ratio - _median(ratio, NEIGHBOURS)
    scatter = 1.4826 * _median(np.abs(deviation), TEXTURE)
    deviation = np.nan_to_num(deviation)
    far = deviation > np.fmax(DEVIATION * np.fmax(scatter, 0.05), np.log(NOISY))
    alone = deviation > ISOLATED * _ranked(deviation, NEIGHBOURS, 3)
    return far & alone & (variance > least)


def _around(image: Float[np.ndarray, "y x"], reach: int) -> Float[np.ndarray, "y x n"]:
    """Sorted values of the square around every pixel without itself, NaN last."""
    size = 2 * reach + 1
    windows = sliding_window_view(np.pad(image, reach, constant_values=np.nan), (size, size))
    around = np.delete(windows.reshape(*image.shape, size * size), size * size // 2, axis=-1)
    return np.sort(around, axis=-1)


def _ranked(image: Float[np.ndarray, "y x"], reach: int, rank: int) -> Float[np.ndarray, "y x"]:
    """The `rank` largest value of the neighbours."""
    return -_around(-image, reach)[..., rank - 1]


def _trimmed_mean(image: Float[np.ndarray, "y x"], reach: int) -> Float[np.ndarray, "y x"]:
    """Mean of the neighbours without the lowest and the highest `TRIMMED`, NaN where few are known.

    Other than a median it is not zero where a few electrons are spread over many pixels.
    """
    around = _around(image, reach)
    known = np.isfinite(around).sum(-1)[..., None]
    rank = np.arange(around.shape[-1])
    kept = (rank >= TRIMMED) & (rank < known - TRIMMED)
    total = np.where(kept, np.nan_to_num(around), 0).sum(-1)
    number = kept.sum(-1)
    return np.where(known[..., 0] >= FEWEST_NEIGHBOURS, total / np.maximum(number, 1), np.nan)


def _median(image: Float[np.ndarray, "y x"], reach: int) -> Float[np.ndarray, "y x"]:
    """Median of the neighbours, NaN where few are known."""
    around = _around(image, reach)
    known = np.isfinite(around).sum(-1)
    low, high = (
        np.take_along_axis(around, np.maximum(k, 0)[..., None], -1)[..., 0]
        for k in ((known - 1) // 2, known // 2)
    )
    return np.where(known >= FEWEST_NEIGHBOURS, (low + high) / 2, np.nan)
