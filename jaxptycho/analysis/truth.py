"""A reconstruction against what is known to be true."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.ndimage import map_coordinates

from ..inverse.penalties import in_radians
from ..model import Model
from .gauge import correlation, register, slope, without_ramp
from .scanned import origin, scanned


class Agreement(NamedTuple):
    """How a phase compares with the true one."""

    correlation: float
    slope: float  # reconstructed per true radian
    shift: np.ndarray  # Å (y, x), removed before comparing


def phases(model: Model) -> Float[np.ndarray, "z Y X"]:
    """Phase of every slice [rad]."""
    return np.asarray(in_radians(model, "phase"), float)


def low_passed(image: np.ndarray, pixel: float, cutoff: float) -> np.ndarray:
    """The image times exp(−(k/cutoff)⁴) in Fourier space; `pixel` in Å, `cutoff` in 1/Å."""
    k2 = sum(np.meshgrid(*(np.fft.fftfreq(n, pixel) ** 2 for n in image.shape), indexing="ij"))
    return np.fft.ifft2(np.fft.fft2(image) * np.exp(-((k2 / cutoff**2) ** 2))).real


def compare_phase(
    phase: Float[np.ndarray, "Y X"], model: Model, truth: np.ndarray, truth_pixel: float, cutoff: float = 1.6
) -> Agreement:
    """A phase [rad] on the model's grid against a periodic true one [rad] whose pixel [0, 0] is
    at the origin of the positions.

    Both are low-passed by exp(−(k/cutoff)⁴), the phase is registered, its ramp removed, and
    only the scanned area counts.
    """
    pixel = model.grid.pixel[0]
    area = scanned(model)
    seen = low_passed(without_ramp(phase, _inside(phase.shape, area)), pixel, cutoff)[area]
    corner = origin(model) + np.array([s.start for s in area]) * pixel
    smooth = low_passed(truth, truth_pixel, cutoff)

    def true_phase(shift):
        axes = [(c + s + np.arange(n) * pixel) / truth_pixel for c, s, n in zip(corner, shift, seen.shape, strict=True)]
        return map_coordinates(smooth, np.meshgrid(*axes, indexing="ij"), order=3, mode="grid-wrap")

    shift = np.zeros(2)
    for _ in range(3):  # the true image is cut anew at each shift, so that no edge takes part
        expected = true_phase(shift)
        shift = shift + pixel * register(_windowed(expected), _windowed(without_ramp(seen))).shift
    expected = true_phase(shift)
    seen = without_ramp(seen - expected) + expected
    return Agreement(correlation(expected, seen), slope(expected, seen), shift)


def _inside(shape, area):
    inside = np.zeros(shape, bool)
    inside[area] = True
    return inside


def _windowed(image):
    window = np.outer(*(np.hanning(n + 2)[1:-1] for n in image.shape))
    return (image - image.mean()) * window
