"""What a reconstruction cannot know, removed before two results are compared.

A constant phase, a linear phase ramp (a tilt of the illumination) and a shift leave every
pattern as it is.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import fourier_shift


def without_ramp(phase: Float[np.ndarray, "Y X"], where: Bool[np.ndarray, "Y X"] | None = None) -> np.ndarray:
    """The phase less the plane that fits it best inside `where` (least squares)."""
    y, x = np.indices(phase.shape)
    plane = np.stack([y, x, np.ones_like(y)], -1).astype(float)
    where = np.ones(phase.shape, bool) if where is None else where
    coefficients = np.linalg.lstsq(plane[where], phase[where], rcond=None)[0]
    return phase - plane @ coefficients


class Registration(NamedTuple):
    """What makes a moving image most like a fixed one: the shift (y, x) [pixels]."""

    shift: np.ndarray
    image: np.ndarray


def register(fixed, moving, digits: int = 2) -> Registration:
    """The moving image shifted onto the fixed one, and the shift that was needed [pixels].

    To `digits` decimals of a pixel: the peak of the cross-correlation, refined by a matrix-product DFT around it
    (Guizar-Sicairos et al., Opt. Lett. 33, 156 (2008)).
    """
    product = np.fft.fft2(fixed) * np.conj(np.fft.fft2(moving))
    correlation = np.abs(np.fft.ifft2(product))
    peak = np.array(np.unravel_index(np.argmax(correlation), correlation.shape), float)
    size = np.array(fixed.shape)
    peak = np.where(peak > size // 2, peak - size, peak)
    for digit in range(1, digits + 1):
        step = 10.0**-digit
        offsets = np.arange(-10, 11) * step
        ky, kx = (np.fft.fftfreq(n) for n in fixed.shape)
        rows = np.exp(2j * np.pi * np.outer(peak[0] + offsets, ky))
        columns = np.exp(2j * np.pi * np.outer(kx, peak[1] + offsets))
        fine = np.abs(rows @ product @ columns)
        best = np.unravel_index(np.argmax(fine), fine.shape)
        peak = peak + offsets[np.array(best)]
    moved = np.fft.ifft2(fourier_shift(np.fft.fft2(moving), peak))
    return Registration(peak, moved if np.iscomplexobj(moving) else moved.real)


def correlation(first, second, where=None) -> float:
    """Pearson's correlation of two images inside `where`."""
    where = np.ones(np.shape(first), bool) if where is None else where
    return float(np.corrcoef(np.ravel(first[where]), np.ravel(second[where]))[0, 1])


def slope(first, second, where=None) -> float:
    """The factor a of the best fit second ≈ a·first + b inside `where`."""
    where = np.ones(np.shape(first), bool) if where is None else where
    return float(np.polyfit(np.ravel(first[where]), np.ravel(second[where]), 1)[0])
