"""First shifts of the views of a tilt series, by correlation over the full field."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import gaussian_filter, map_coordinates

from ..analysis.maxima import between_pixels, highest_lag
from ..physics.types import Numbers
from .gauge import without_translation

# Of the field. Finer detail differs from view to view, and the lattice of a crystal repeats after
# a few Å: with 0.03 a field that just holds the particle is wrong by 0.9 Å. Phase correlation,
# which weights all frequencies equally, is still wrong by 3 Å; its square root (van Heel, Schatz &
# Orlova 1992) gains nothing.
SMOOTHING = 0.05
ROUNDS = 10
DETAIL = 1.0  # Å, blur of films; with 3 Å those of few particles are wrong by 7 Å
MIN_OVERLAP = 0.4  # of the largest overlap of two masks, required at a lag
MIN_VARIANCE = 1e-3  # of the largest variance, required for a correlation


def coarse_shifts(
    projections: Float[np.ndarray, "view y x"], tilts: Numbers, pixel: Numbers
) -> Float[np.ndarray, "view 2"]:
    """Shifts (y, x) [Å] of all views, without a shift of the full specimen.

    Along the tilt axis from the common line of all views: the profile Σ_x of every view is the
    same (Crowther, DeRosier & Klug 1970). Across it from neighbours stretched by cos θ
    (Guckenberger 1982), outwards from the least tilted view.
    """
    tilts = np.asarray(tilts)
    levels = projections - np.median(projections, (1, 2), keepdims=True)
    smooth = gaussian_filter(levels, (0, *(SMOOTHING * n for n in projections.shape[1:])))
    along = _common_profile(smooth.sum(2))
    ramps = _ramps(along, projections.shape[1])[..., None]
    level = np.fft.ifft(np.fft.fft(smooth, axis=1) * ramps, axis=1).real
    across = _from_neighbours(level, tilts)
    return without_translation(np.stack([along, across], 1), tilts) * np.asarray(pixel)


def film_shifts(
    projections: Float[np.ndarray, "view y x"],
    seen: Bool[np.ndarray, "view y x"],
    tilts: Numbers,
    pixel: Numbers,
) -> Float[np.ndarray, "view 2"]:
    """Shifts (y, x) [Å] of all views of a specimen that continues beyond their field.

    Less a shift of the full specimen. No two views show the same part of it; neighbours, stretched
    by cos θ, are therefore correlated where both are `seen`, at every lag with the means and
    variances of their overlap (Padfield, IEEE Trans. Image Process. 21, 2706 (2012)). Errors
    accumulate from view to view, whereas a particle in vacuum has its common line
    (`coarse_shifts`).
    """
    tilts = np.asarray(tilts)
    pixel = np.asarray(pixel)
    wide = (0, *(DETAIL / pixel))
    level = np.stack(
        [np.where(own, p - np.median(p[own]), 0) for p, own in zip(projections, seen, strict=True)]
    )
    smooth = gaussian_filter(level, wide) / np.maximum(
        gaussian_filter(seen.astype(float), wide), MIN_VARIANCE
    )
    shifts = np.zeros((len(tilts), 2))
    for known, new in _outwards(tilts):
        factor = np.cos(tilts[new]) / np.cos(tilts[known])
        fixed, mask = (
            _stretched(image, factor, shifts[known])
            for image in (smooth[known], seen[known].astype(float))
        )
        shifts[new] = _masked_lag(fixed, mask > 0.99, smooth[new], seen[new])
    return without_translation(shifts, tilts) * pixel


def _common_profile(profiles) -> np.ndarray:
    """Shifts [pixels] of profiles of one shape, against their mean.

    The window is fixed, the profiles move under it until they agree: no bias towards zero.
    """
    shifts = np.zeros(len(profiles))
    window = np.hanning(profiles.shape[1] + 2)[1:-1]
    spectra = np.fft.fft(profiles)
    for _ in range(ROUNDS):
        back = window * np.fft.ifft(spectra * _ramps(shifts, profiles.shape[1])).real
        shifts = shifts + np.array([_lag(back.mean(0), profile) for profile in back])
    return shifts


def _ramps(shifts, n: int):
    """Phase ramps that move samples back by `shifts`, to be multiplied with their spectra."""
    return np.exp(2j * np.pi * np.fft.fftfreq(n) * shifts[:, None])


def _from_neighbours(images, tilts) -> np.ndarray:
    """Shifts [pixels] across the axis, from one view to the next of larger tilt."""
    shifts = np.zeros(len(tilts))
    for known, new in _outwards(tilts):
        factor = np.cos(tilts[new]) / np.cos(tilts[known])
        shifts[new] = _lag(_stretched(images[known], factor, (0.0, shifts[known])), images[new])
    return shifts


def _outwards(tilts) -> Iterator[tuple[int, int]]:
    """Neighbours, from the least tilted view: one whose shift is known by then, and the next."""
    order = np.argsort(tilts)
    first = int(np.argmin(np.abs(tilts[order])))
    for way in (order[first:], order[first::-1]):
        yield from pairwise(map(int, way))


def _stretched(image, factor, shift):
    """Image about its middle at `shift` (y, x), stretched along x by `factor`, and centred."""
    middle = image.shape[1] // 2
    y = np.arange(image.shape[0])[:, None] + shift[0]
    x = middle + shift[1] + (np.arange(image.shape[1]) - middle) / factor
    return map_coordinates(image, np.stack(np.broadcast_arrays(y, x)), order=1)


def _lag(fixed, moving) -> float:
    """Lag of the moving profile behind the fixed one along the last axis [samples].

    Between samples by a parabola.
    """
    n = fixed.shape[-1]
    cross = np.fft.rfft(moving, 2 * n) * np.fft.rfft(fixed, 2 * n).conj()
    return float(_peak(np.fft.irfft(cross.reshape(-1, n + 1).sum(0)))[0])


def _masked_lag(fixed, fixed_mask, moving, moving_mask) -> np.ndarray:
    """Lag (y, x) [pixels] of the moving image behind the fixed one, where both masks are set."""
    shape = [2 * n for n in fixed.shape]

    def spectra(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return np.fft.rfft2(np.stack([mask, image * mask, image**2 * mask]), shape)

    count, one, square = spectra(fixed, fixed_mask)
    others, other, others_square = spectra(moving, moving_mask)

    def together(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.fft.irfft2(a.conj() * b, shape)

    number = np.maximum(together(count, others), 1e-6)
    sums = together(one, others), together(count, other)
    cross = together(one, other) - sums[0] * sums[1] / number
    squares = together(square, others), together(count, others_square)
    spread = [np.maximum(s2 - s**2 / number, 0) for s2, s in zip(squares, sums, strict=True)]
    told = (
        (number > MIN_OVERLAP * number.max())
        & (spread[0] > MIN_VARIANCE * spread[0].max())
        & (spread[1] > MIN_VARIANCE * spread[1].max())
    )
    sure = np.sqrt(number)  # factor of a correlation above chance
    return _peak(
        np.where(told, sure * cross / np.sqrt(np.where(told, spread[0] * spread[1], 1)), -np.inf)
    )


def _peak(values) -> np.ndarray:
    """Position of the maximum of periodic values, from −n/2 on along each axis.

    Between samples by parabolas.
    """
    lag = highest_lag(values)
    return lag + between_pixels(values, lag)
