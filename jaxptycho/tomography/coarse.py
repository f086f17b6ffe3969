"""First shifts of the views of a tilt series, by correlation: coarse, and from far."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import gaussian_filter, map_coordinates

# Of the field. Finer detail differs from view to view, and the lattice of a crystal comes back after a few Å: with 0.03
# a field that just holds the particle goes astray by 0.9 Å. Phase correlation, which gives all frequencies one weight,
# goes astray by 3 Å even so; the square root of that (van Heel, Schatz & Orlova 1992) gains nothing.
SMOOTH = 0.05
ROUNDS = 10
DETAIL = 1.0  # Å, to which films are blurred; with 3 Å those of few particles go astray by 7 Å
OVERLAP = 0.4  # of the largest one, which a lag must leave to two masks
FLAT = 1e-3  # of the largest variances, below which there is nothing to correlate


def coarse_shifts(
    projections: Float[np.ndarray, "view y x"], tilts, pixel
) -> Float[np.ndarray, "view 2"]:
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


def film_shifts(
    projections: Float[np.ndarray, "view y x"], seen: Bool[np.ndarray, "view y x"], tilts, pixel
) -> Float[np.ndarray, "view 2"]:
    """Shifts (y, x) [Å] of all views of a specimen that goes on beyond their field, less a shift of the whole of it.

    No two views see the same of it. So neighbours, stretched by cos θ, are correlated where both are `seen`, at every
    lag with the means and variances of what it leaves of them to each other (Padfield, IEEE Trans. Image Process. 21,
    2706 (2012)). From view to view errors add up, where a particle in vacuum has its common line (`coarse_shifts`).
    """
    tilts, pixel = np.asarray(tilts), np.asarray(pixel)
    wide = (0, *(DETAIL / pixel))
    level = np.stack(
        [np.where(own, p - np.median(p[own]), 0) for p, own in zip(projections, seen, strict=True)]
    )
    smooth = gaussian_filter(level, wide) / np.maximum(
        gaussian_filter(seen.astype(float), wide), FLAT
    )
    shifts = np.zeros((len(tilts), 2))
    for known, new in _outwards(tilts):
        factor = np.cos(tilts[new]) / np.cos(tilts[known])
        fixed, mask = (
            _stretched(image, factor, shifts[known])
            for image in (smooth[known], seen[known].astype(float))
        )
        shifts[new] = _masked_lag(fixed, mask > 0.99, smooth[new], seen[new])
    common = np.stack([np.cos(tilts), np.sin(tilts)], 1)
    across = shifts[:, 1] - common @ np.linalg.lstsq(common, shifts[:, 1], rcond=None)[0]
    return np.stack([shifts[:, 0] - shifts[:, 0].mean(), across], 1) * pixel


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
    shifts = np.zeros(len(tilts))
    for known, new in _outwards(tilts):
        factor = np.cos(tilts[new]) / np.cos(tilts[known])
        shifts[new] = _lag(_stretched(images[known], factor, (0.0, shifts[known])), images[new])
    return shifts


def _outwards(tilts) -> Iterator[tuple[int, int]]:
    """Neighbours, from the view that is tilted least: one whose shift is known by then, and the next."""
    order = np.argsort(tilts)
    first = int(np.argmin(np.abs(tilts[order])))
    for way in (order[first:], order[first::-1]):
        yield from pairwise(map(int, way))


def _stretched(image, factor, shift):
    """The image about its middle at `shift` (y, x), as long along x as `factor` says, brought to the middle."""
    middle = image.shape[1] // 2
    y = np.arange(image.shape[0])[:, None] + shift[0]
    x = middle + shift[1] + (np.arange(image.shape[1]) - middle) / factor
    return map_coordinates(image, np.stack(np.broadcast_arrays(y, x)), order=1)


def _lag(fixed, moving) -> float:
    """How far the moving one lies behind the fixed one along the last axis [samples], between samples by a parabola."""
    n = fixed.shape[-1]
    cross = np.fft.rfft(moving, 2 * n) * np.fft.rfft(fixed, 2 * n).conj()
    return float(_peak(np.fft.irfft(cross.reshape(-1, n + 1).sum(0)))[0])


def _masked_lag(fixed, fixed_mask, moving, moving_mask) -> np.ndarray:
    """How far (y, x) [pixels] the moving image lies behind the fixed one, by what both masks show of them."""
    shape = [2 * n for n in fixed.shape]

    def spectra(image, mask):
        return np.fft.rfft2(np.stack([mask, image * mask, image**2 * mask]), shape)

    (count, one, square), (others, other, others_square) = (
        spectra(fixed, fixed_mask),
        spectra(moving, moving_mask),
    )

    def together(a, b):
        return np.fft.irfft2(a.conj() * b, shape)

    number = np.maximum(together(count, others), 1e-6)
    sums = together(one, others), together(count, other)
    cross = together(one, other) - sums[0] * sums[1] / number
    squares = together(square, others), together(count, others_square)
    spread = [np.maximum(s2 - s**2 / number, 0) for s2, s in zip(squares, sums, strict=True)]
    told = (
        (number > OVERLAP * number.max())
        & (spread[0] > FLAT * spread[0].max())
        & (spread[1] > FLAT * spread[1].max())
    )
    sure = np.sqrt(number)  # by which a correlation stands out from chance
    return _peak(
        np.where(told, sure * cross / np.sqrt(np.where(told, spread[0] * spread[1], 1)), -np.inf)
    )


def _peak(values) -> np.ndarray:
    """Where the values, which go round, are greatest, from −n/2 on along each axis, between samples by parabolas."""
    peak, place = np.unravel_index(np.argmax(values), values.shape), []
    for axis, (index, n) in enumerate(zip(peak, values.shape, strict=True)):
        line = values[tuple(slice(None) if a == axis else i for a, i in enumerate(peak))]
        low, here, high = (line[(index + d) % n] for d in (-1, 0, 1))
        known = np.isfinite([low, here, high]).all()  # not beside a lag without a value
        bend = low - 2 * here + high if known else 0.0
        between = 0.5 * (low - high) / bend if bend < 0 else 0.0
        place.append((index + n // 2) % n - n // 2 + between)
    return np.array(place)
