"""Counts of an electron and their spread, from the cumulants of the counts.

An electron leaves N counts over some neighbouring pixels. With x the counts of a pixel and X those
of a square around it that holds all counts of an event, κ₁ = ⟨x⟩ = λ⟨N⟩, κ₂ = ⟨δx δX⟩ = λ⟨N²⟩ and
κ₃ = ⟨δx δX²⟩ = λ⟨N³⟩ (compound Poisson process). The factorial moments Mₙ of N give
⟨N⟩ = 2 M₂/M₁ − M₃/M₂: exact where N is constant, Poisson or negative binomial, and within a few
percent for a gamma distribution. Intensities that vary from shot to shot add terms of higher order
in λ: ratios are continued to few electrons by lines in κ₁, and deviations are taken from the mean
of neighbouring shots.
"""

import math
from itertools import pairwise
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage

from ..data import Dataset
from ..data.first_pass import BLOCK
from ..data.tiles import tiles_of
from .cumulants import REACH, Cumulants, cumulants
from .few_counts import Continued, binned_sums, continued

COVERED = 0.03  # relative growth of κ₂ with the square, below which the smaller one holds all
SIGNIFICANT = 3.0  # standard errors of such a growth
SAMPLE_PIXELS = 2**23
FEWEST_SAMPLED = 64  # patterns
PART_SHOTS = 16  # neighbouring patterns of a part of the sample
READOUT = 4.0  # standard deviations of the readout, above which counts are those of electrons
ABOVE_READOUT = 2.0  # counts of an electron over that threshold, at least
MOSTLY_ABOVE = 0.7  # of the counts, over that threshold
FEWEST_NEGATIVE = 0.05  # fraction of the counts
BRIGHT = 0.1  # of the brightest pixel
UNSURE = 0.5  # fraction of what a line was continued by, below which squares are alike
NOISELESS = 1e-6  # variance over mean, relative to the mean: rounding of single precision
UNLIKE = 0.3  # difference of the noise of a pixel from that of single electrons
MANY_COUNTS = 1.3  # of an electron
SINGLE = 1.15  # ⟨N²⟩/⟨N⟩ of a camera that counts electrons, at most
# ⟨N⟩ over ⟨N²⟩/⟨N⟩ of cameras, and its spread: relative variances of pulse heights of 0 to ½
PULSE_HEIGHTS = (0.87, 0.1)
PLAUSIBLE = (0.5, 1.25)  # beyond which intensities that vary rule the third cumulant
OTHER_LAWS = 0.03  # relative error of ⟨N⟩ for other distributions of N


class ElectronResponse(NamedTuple):
    """Statistics of the counts that an electron leaves, with standard errors."""

    mean: float  # ⟨N⟩, counts per electron
    error: float
    noise: float  # ⟨N²⟩/⟨N⟩, variance over mean of sums of pixels
    noise_error: float
    pixel_noise: float  # variance over mean of a single pixel
    pixel_noise_error: float
    spread: float  # rms of an event in each direction [pixels]
    spread_error: float

    @property
    def many_counts(self) -> bool:
        """True where an electron certainly makes more counts than one, in single pixels too."""
        least = self.mean - SIGNIFICANT * self.error
        in_a_pixel = self.pixel_noise - SIGNIFICANT * self.pixel_noise_error
        return min(least, in_a_pixel) > MANY_COUNTS


_of_datasets: WeakKeyDictionary[Dataset, ElectronResponse | None] = WeakKeyDictionary()


def electron_response(data: Dataset) -> ElectronResponse | None:
    """Response of the camera, from a sample of the view with most shots (`measured_response`).

    Measured once for each dataset.
    """
    if data not in _of_datasets:
        _of_datasets[data] = _of_sample(data)
    return _of_datasets[data]


def _of_sample(data: Dataset) -> ElectronResponse | None:
    view = data.view(int(np.argmax(data.n_shots)))
    if _hidden_by_readout(view):
        return None
    patterns, parts = neighbouring_sample(view)
    sums = cumulants(patterns, parts)
    if sums is None:
        return None
    least = 1.0 if view.kinds[0].kind in "ui" else 0.0
    return measured_response(sums, _dim(patterns.mean(0)), view.mask, least, threshold_of(view))


def _dim(mean: Float[np.ndarray, "y x"]) -> Bool[np.ndarray, "y x"]:
    """Pixels away from all that are bright in the mean pattern, such as those of the disc."""
    smooth = ndimage.median_filter(mean, 3)
    bright = smooth > BRIGHT * smooth.max()
    return np.logical_not(ndimage.binary_dilation(bright, iterations=REACH))


def noise_of_a_pixel(data: Dataset) -> float:
    """Variance over mean of the counts of a pixel; 1 without evidence of another value."""
    found = electron_response(data)
    exact = exact_counts(data, found)
    if exact is not None or found is None:
        return exact or 1.0
    certain = abs(found.pixel_noise - 1) > max(UNLIKE, SIGNIFICANT * found.pixel_noise_error)
    return found.pixel_noise if certain else 1.0


def measured_response(
    sums: Cumulants,
    dark: Bool[np.ndarray, "y x"],
    mask: Bool[np.ndarray, "y x"] | None,
    least: float = 0.0,
    threshold: float = 0.0,
) -> ElectronResponse | None:
    """Response from pixels inside and outside of the disc (`dark`), errors from a jackknife.

    `least` is a lower bound of ⟨N²⟩/⟨N⟩, 1 for whole counts; lower counts than `threshold` were
    taken for none. None where too few electrons were seen, counts without noise, or electrons
    whose counts are hardly above the readout.
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
    if mean < ABOVE_READOUT * threshold:
        return None
    # whole counts that fall into pixels one by one: a count has no distance from itself
    pairs = noise.values - (least if noise.values[0] > SINGLE else 0.0)
    spread = np.sqrt(np.maximum(square.values, 0) / np.maximum(2 * pairs, 1e-12))
    spread_error = np.sqrt((len(spread) - 2) * np.var(spread[1:]))
    excess = float(noise.values[0])
    pixel = each[0]
    return ElectronResponse(
        mean,
        error,
        excess,
        noise.error,
        float(pixel.values[0]),
        pixel.error,
        float(spread[0]),
        float(spread_error),
    )


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
    low, high = PLAUSIBLE
    plausible = low * ratio < 2 * second[0] - third[0] / second[0] < high * ratio
    own = plausible / (counting**2 + line**2 + 1e-12)
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


def neighbouring_sample(data: Dataset) -> tuple[Float[np.ndarray, "n y x"], Int[np.ndarray, " n"]]:
    """Patterns of the single view in groups of neighbouring shots, and the group of each."""
    positions = data.positions[0]
    n = len(positions)
    parts = tiles_of(positions, max(1, math.isqrt(n // PART_SHOTS)))
    count = max(FEWEST_SAMPLED, SAMPLE_PIXELS // math.prod(data.grid.shape))
    numbers = np.unique(parts)
    wanted = max(1, round(len(numbers) * min(1.0, count / n)))
    chosen = numbers[np.linspace(0, len(numbers) - 1, wanted).round().astype(int)]
    shots = np.flatnonzero(np.isin(parts, chosen))
    blocks = (shots[start : start + BLOCK] for start in range(0, len(shots), BLOCK))
    patterns = np.concatenate([data.patterns(0, block).astype(np.float32) for block in blocks])
    patterns = np.fft.fftshift(patterns, axes=(1, 2))
    return np.where(patterns > threshold_of(data), patterns, 0), parts[shots]


def _hidden_by_readout(data: Dataset) -> bool:
    """True if the threshold above the readout takes a large part of the counts in dim pixels."""
    threshold = threshold_of(data)
    if threshold == 0:
        return False
    block = np.concatenate(list(data.raw_sample())).astype(float)
    block = np.where(np.isfinite(block), block, 0)
    dim = _dim(block.mean(0))
    if data.mask is not None:
        dim &= data.mask
    counts = block[:, dim]
    return bool(counts[counts > threshold].sum() < MOSTLY_ABOVE * counts.sum())


def threshold_of(data: Dataset) -> float:
    """Counts above the readout noise, as the negative counts of a dark subtraction show it."""
    block = next(data.raw_sample())
    negative = block[np.isfinite(block) & (block < 0)]
    if len(negative) < FEWEST_NEGATIVE * block.size:
        return 0.0
    return READOUT * 1.4826 * float(np.median(-negative.astype(float)))


def exact_counts(data: Dataset, response: ElectronResponse | None) -> float | None:
    """Counts per electron, of which all counts are multiples; None where it is 1 or unknown.

    The smallest step of counts that have been scaled is not that of an electron.
    """
    divisor = common_divisor(data)
    if divisor is None or response is None:
        return divisor
    return divisor if abs(response.noise / divisor - 1) < UNLIKE else None


def common_divisor(data: Dataset) -> float | None:
    """Common divisor of all counts, as of electrons that each make this number; None if it is 1."""
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
