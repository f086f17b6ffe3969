"""First shifts of the views of a tilt series, by correlation: coarse, and from far."""

from itertools import pairwise

import numpy as np
from jaxtyping import Float
from scipy.ndimage import gaussian_filter, map_coordinates

# Of the field. Finer detail differs from view to view, and the lattice of a crystal comes back after a few Å: with 0.03
# a field that just holds the particle goes astray by 0.9 Å. Phase correlation, which gives all frequencies one weight,
# goes astray by 3 Å even so; the square root of that (van Heel, Schatz & Orlova 1992) gains nothing.
SMOOTH = 0.05
ROUNDS = 10


def coarse_shifts(projections: Float[np.ndarray, "view y x"], tilts, pixel) -> Float[np.ndarray, "view 2"]:
    """Shifts (y, x) [Å] of all views, less a shift of the whole specimen.

    Along the tilt axis from the line that all views have in common there: the profile Σ_x of every view is the same
    (Crowther, DeRosier & Klug 1970). Across it from neighbours stretched by cos θ (Guckenberger 1982), outwards from
    the view that is tilted least.
    """
    tilts = np.asarray(tilts)
    levels = projections - np.median(projections, (1, 2), keepdims=True)
    smooth = gaussian_filter(levels, (0, *(SMOOTH * n for n in projections.shape[1:])))
    along = _common_profile(smooth.sum(2))
    ramps = _ramps(along, projections.shape[1])[..., None]
    level = np.fft.ifft(np.fft.fft(smooth, axis=1) * ramps, axis=1).real
    across = _from_neighbours(level, tilts)
    common = np.stack([np.cos(tilts), np.sin(tilts)], 1)
    across = across - common @ np.linalg.lstsq(common, across, rcond=None)[0]
    return np.stack([along - along.mean(), across], 1) * np.asarray(pixel)


def _common_profile(profiles) -> np.ndarray:
    """Shifts [pixels] of profiles that are alike, against their mean.

    The window stays, the profiles move under it until they agree: it draws no shift towards zero.
    """
    shifts, window = np.zeros(len(profiles)), np.hanning(profiles.shape[1] + 2)[1:-1]
    spectra = np.fft.fft(profiles)
    for _ in range(ROUNDS):
        back = window * np.fft.ifft(spectra * _ramps(shifts, profiles.shape[1])).real
        shifts = shifts + np.array([_lag(back.mean(0), profile) for profile in back])
    return shifts


def _ramps(shifts, n: int):
    """What moves samples back by `shifts`, to be multiplied with their spectra."""
    return np.exp(2j * np.pi * np.fft.fftfreq(n) * shifts[:, None])


def _from_neighbours(images, tilts) -> np.ndarray:
    """Shifts [pixels] across the axis, from one view to the next of larger tilt."""
    order = np.argsort(tilts)
    first = int(np.argmin(np.abs(tilts[order])))
    shifts = np.zeros(len(tilts))
    for way in (order[first:], order[first::-1]):
        for known, new in pairwise(way):
            fixed = _stretched(images[known], np.cos(tilts[new]) / np.cos(tilts[known]), shifts[known])
            shifts[new] = _lag(fixed, images[new])
    return shifts


def _stretched(image, factor, shift):
    """The image about its middle at `shift`, as long along x as `factor` says, brought to the middle."""
    middle = image.shape[1] // 2
    x = middle + shift + (np.arange(image.shape[1]) - middle) / factor
    rows = np.broadcast_to(np.arange(image.shape[0])[:, None], image.shape)
    return map_coordinates(image, [rows, np.broadcast_to(x, image.shape)], order=1)


def _lag(fixed, moving) -> float:
    """How far the moving one lies behind the fixed one along the last axis [samples], between samples by a parabola."""
    n = fixed.shape[-1]
    cross = np.fft.rfft(moving, 2 * n) * np.fft.rfft(fixed, 2 * n).conj()
    total = np.fft.irfft(cross.reshape(-1, n + 1).sum(0))
    peak = int(np.argmax(total))
    low, here, high = (total[(peak + d) % (2 * n)] for d in (-1, 0, 1))
    bend = low - 2 * here + high
    return (peak + n) % (2 * n) - n + (0.5 * (low - high) / bend if bend < 0 else 0.0)
