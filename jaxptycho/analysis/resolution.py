"""Fourier ring and shell correlation (van Heel & Schatz, J. Struct. Biol. 151, 250 (2005)).

One set of functions for images (FRC) and volumes (FSC), real or complex.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import fft

from ..physics.types import Numbers
from .shells import (
    Pixel,
    Vector,
    Where,
    all_frequencies,
    cone,
    filling,
    outside,
    shells,
    transform,
    wedge,
    windowed,
)

MIN_SAMPLES = 50


class FourierCorrelation(NamedTuple):
    """Correlation of two images shell by shell."""

    frequency: np.ndarray  # 1/Å, middle of every shell
    correlation: np.ndarray  # NaN in shells without samples
    samples: np.ndarray  # number of independent Fourier pixels in every shell

    def resolution(self, threshold: Callable) -> float:
        """Resolution [Å] at which the curve falls below `threshold(samples)`.

        The last shell if it never does, ∞ if it is nowhere above. Shells of fewer than 50 samples
        are ignored: a dip there is due to the window and the removed ramp.
        """
        frequency, correlation, samples = (values[np.isfinite(self.correlation)] for values in self)
        margin = correlation - threshold(np.maximum(samples, 1))
        below = np.flatnonzero((margin < 0) & (samples >= MIN_SAMPLES))
        if len(below) == 0:
            return float(1 / frequency[-1])
        above = np.flatnonzero(margin[1 : below[0]] >= 0) + 1
        if len(above) == 0:
            return float("inf")
        ends = [above[-1], above[-1] + 1]
        return float(1 / np.interp(0, -margin[ends], frequency[ends]))

    @property
    def ssnr(self) -> np.ndarray:
        """Spectral signal-to-noise ratio of all data, the correlation being that of their two
        halves.

        2 FSC/(1 − FSC) (Penczek, Methods Enzymol. 482, 73 (2010)); each half has half of it.
        """
        correlation = np.minimum(self.correlation, 1)
        with np.errstate(divide="ignore"):
            return 2 * correlation / (1 - correlation)


def one_bit(samples: Any) -> Any:
    """Threshold of one bit of information per Fourier pixel from both halves together."""
    return (0.5 + 2.4142 / np.sqrt(samples)) / (1.5 + 1.4142 / np.sqrt(samples))


def half_bit(samples: Any) -> Any:
    """Threshold of half a bit of information per Fourier pixel from both halves together."""
    return (0.2071 + 1.9102 / np.sqrt(samples)) / (1.2071 + 0.9102 / np.sqrt(samples))


def fixed(level: float) -> Callable:
    """Constant threshold for all shells: 0.143 for two halves, 0.5 against a truth."""
    return lambda samples: np.full(np.shape(samples), level)


THRESHOLDS = {"one-bit": one_bit, "half-bit": half_bit, "0.143": fixed(0.143)}  # for two halves


def fourier_correlation(
    first: Numbers,
    second: Numbers,
    pixel: Pixel,
    window: Any = None,
    where: Where = all_frequencies,
) -> FourierCorrelation:
    """Correlation Re ΣF₁F₂* / √(Σ|F₁|²Σ|F₂|²), FRC or FSC, of registered images of equal shape.

    `window` (`taper`, `soft_mask`) is applied to both, without it they are assumed periodic;
    `where` weights the Fourier pixels (`cone`, `wedge`). `samples` counts both Friedel mates, as
    the thresholds expect, of which one is independent in real images: the correlation of
    independent noise has mean 0 and variance 1/samples, half of that if it is complex.
    """
    return fourier_correlations(first, second, pixel, [where], window)[0]


def fourier_correlations(
    first: Numbers, second: Numbers, pixel: Pixel, wheres: Sequence[Where], window: Any = None
) -> list[FourierCorrelation]:
    """Correlations in several parts of Fourier space, from one transform of each image."""
    if np.shape(first) != np.shape(second):
        raise ValueError(
            f"images of {np.shape(first)} and {np.shape(second)} pixels have no common rings; cut "
            "both to one shape"
        )
    half = np.isrealobj(first) and np.isrealobj(second)
    images = (
        (first, second)
        if window is None
        else (windowed(image, window) for image in (first, second))
    )
    a, b = (transform(image, half) for image in images)
    rings = shells(np.shape(first), pixel, half)
    cross = np.real(a * b.conj())
    power_a = np.abs(a) ** 2
    power_b = np.abs(b) ** 2
    independent = 1.0 if window is None else filling(window)

    def within(where: Where) -> FourierCorrelation:
        weight = np.asarray(where(rings.k), float)
        norm = np.sqrt(rings.sum(weight * power_a) * rings.sum(weight * power_b))
        total = rings.sum(weight)
        samples = independent * total**2 / np.maximum(rings.sum(weight**2), 1e-300)
        curve = np.where(total > 0, rings.sum(weight * cross) / np.maximum(norm, 1e-300), np.nan)
        return FourierCorrelation(rings.frequency, curve, samples)

    return [within(where) for where in wheres]


def directional_correlations(
    first: Numbers,
    second: Numbers,
    pixel: Pixel,
    axes: Sequence[Vector] | np.ndarray,
    half_angle: float,
    edge: float = 0.0,
    window: Any = None,
) -> list[FourierCorrelation]:
    """Correlations in a double cone about each of `axes`; angles in rad (Tan et al. 2017)."""
    return fourier_correlations(
        first, second, pixel, [cone(axis, half_angle, edge) for axis in axes], window
    )


class WedgeCorrelations(NamedTuple):
    """Correlations inside the measured part of a tilt series, and in the missing wedge."""

    inside: FourierCorrelation
    outside: FourierCorrelation


def wedge_correlations(
    first: Numbers,
    second: Numbers,
    pixel: Pixel,
    tilts: tuple[float, float],
    window: Any = None,
    where: Where = all_frequencies,
) -> WedgeCorrelations:
    """Correlation of volumes [z, y, x] inside the tilts [rad], and in the missing wedge.

    `tilts` are the lowest and the highest. Against a truth, only the second one measures the
    recovery of the wedge. A window mixes the two near their border. `where` is a further weight,
    such as a cone.
    """
    measured = wedge(*tilts)
    both = [lambda k, part=part: part(k) * where(k) for part in (measured, outside(measured))]
    return WedgeCorrelations(*fourier_correlations(first, second, pixel, both, window))


class Control(NamedTuple):
    """A correlation under a mask, and the contribution of the mask to it."""

    masked: FourierCorrelation
    randomised: FourierCorrelation
    corrected: FourierCorrelation


def phase_randomised_control(
    first: Numbers, second: Numbers, pixel: Pixel, window: Any, beyond: float, seed: int = 0
) -> Control:
    """Correlation under `window`, corrected for the contribution of the window.

    The phases of both images beyond a frequency [1/Å] are randomised and the correlation
    recomputed: FSC_true = (FSC_t − FSC_n)/(1 − FSC_n) (Chen et al., Ultramicroscopy 135, 24
    (2013)). Applied from two shells beyond that frequency, since the window smears the
    common part of both images up to there.
    """
    masked = fourier_correlation(first, second, pixel, window)
    one, other = (
        with_random_phases(image, pixel, beyond, [seed, n])
        for n, image in enumerate((first, second))
    )
    randomised = fourier_correlation(one, other, pixel, window)
    total = masked.correlation
    noise = randomised.correlation
    frequency = masked.frequency
    true = (total - noise) / np.maximum(1 - noise, 1e-6)
    changed = frequency >= beyond + 1.999 * frequency[1]
    return Control(masked, randomised, masked._replace(correlation=np.where(changed, true, total)))


def with_random_phases(image: Numbers, pixel: Pixel, beyond: float, seed: Any) -> np.ndarray:
    """Image with random phases beyond a frequency [1/Å]; power spectrum and realness are kept."""
    rng = np.random.default_rng(seed)
    half = np.isrealobj(image)
    shape = np.shape(image)
    noise = rng.normal(size=shape) if half else rng.normal(size=shape) + 1j * rng.normal(size=shape)
    phases = transform(noise, half)
    phases /= np.abs(phases)
    k2 = sum(step**2 for step in shells(shape, pixel, half).k)
    spectrum = transform(image, half)
    changed = np.where(k2 > beyond**2, np.abs(spectrum) * phases, spectrum)
    return np.asarray(fft.irfftn(changed, s=shape) if half else fft.ifftn(changed))
