"""Fourier ring correlation (van Heel & Schatz, J. Struct. Biol. 151, 250 (2005))."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.signal.windows import tukey


class RingCorrelation(NamedTuple):
    """Correlation of two images ring by ring."""

    frequency: np.ndarray  # 1/Å, middle of every ring
    correlation: np.ndarray
    samples: np.ndarray  # independent Fourier pixels in every ring

    def resolution(self, threshold: Callable) -> float:
        """Where the curve first falls below `threshold(samples)` [Å]; the last ring if it never does.

        Rings of fewer than 50 samples are passed over: there a dip says more of the window and of
        the ramp that was removed than of the resolution.
        """
        level = threshold(self.samples)
        below = np.flatnonzero((self.correlation < level) & (self.samples >= 50))
        if len(below) == 0:
            return float(1 / self.frequency[-1])
        i = below[0]
        before, after = (self.correlation - level)[i - 1 : i + 1]
        part = before / (before - after) if before > 0 else 0.0
        return float(1 / np.interp(part, [0, 1], self.frequency[i - 1 : i + 1]))


def one_bit(samples):
    """One bit of information per Fourier pixel from both halves together."""
    return (0.5 + 2.4142 / np.sqrt(samples)) / (1.5 + 1.4142 / np.sqrt(samples))


def half_bit(samples):
    """Half a bit of information per Fourier pixel from both halves together."""
    return (0.2071 + 1.9102 / np.sqrt(samples)) / (1.2071 + 0.9102 / np.sqrt(samples))


def fixed(level: float):
    """The same threshold for every ring: 0.143 for two halves, 0.5 against a truth."""
    return lambda samples: np.full(np.shape(samples), level)


def tapered(image, border: float = 0.15):
    """The image less its mean, falling to zero over `border` of each side (a Tukey window)."""
    window = np.outer(*(tukey(n, 2 * border) for n in image.shape))
    return (image - np.mean(image)) * window


def ring_correlation(first, second, pixel: float) -> RingCorrelation:
    """FRC = Re ΣF₁F₂* / √(Σ|F₁|²Σ|F₂|²) of two images of equal shape, `pixel` in Å.

    Taper and register the images first (`tapered`, `gauge.register`).
    """
    a, b = np.fft.fft2(first), np.fft.fft2(second)
    k = np.hypot(*np.meshgrid(*(np.fft.fftfreq(n, pixel) for n in first.shape), indexing="ij"))
    width = 1 / (min(first.shape) * pixel)
    ring = np.rint(k / width).astype(int)
    last = min(first.shape) // 2

    def per_ring(values):
        return np.bincount(ring.ravel(), values.ravel(), minlength=last + 1)[: last + 1]

    cross = per_ring((a * b.conj()).real)
    norm = np.sqrt(per_ring(np.abs(a) ** 2) * per_ring(np.abs(b) ** 2))
    samples = per_ring(np.ones(k.shape))
    return RingCorrelation(np.arange(last + 1) * width, cross / np.maximum(norm, 1e-300), samples)
