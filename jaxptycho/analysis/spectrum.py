"""Resolution estimates from a single image: power spectrum, Bragg peaks, edges."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import fft
from scipy.ndimage import map_coordinates
from scipy.optimize import curve_fit
from scipy.special import erf, erfinv

from ..physics.types import Numbers
from .maxima import between_pixels, brightest
from .shells import Pixel, Vector, filling, per_axis, shells, transform, windowed

LOBE = 2  # frequency steps from the peak to the first zero of a Hann window
RING = 8  # frequency steps around a peak in which its background is measured


class RadialSpectrum(NamedTuple):
    """Mean power of every ring or shell."""

    frequency: np.ndarray  # 1/Å
    power: np.ndarray  # the variance in case of white noise, for any window
    samples: np.ndarray  # number of independent Fourier pixels


def radial_spectrum(image: Numbers, pixel: Pixel, window: Any = None) -> RadialSpectrum:
    """Mean of |F|² / (N·mean w²) over every ring of an image or shell of a volume."""
    half = np.isrealobj(image)
    n = np.size(image)
    rings = shells(np.shape(image), pixel, half)
    power = np.abs(transform(image if window is None else windowed(image, window), half)) ** 2
    passed = 1.0 if window is None else float(np.mean(window**2))
    samples = rings.sum(1.0)
    mean = rings.sum(power) / (n * passed * samples)
    return RadialSpectrum(
        rings.frequency, mean, samples * (1.0 if window is None else filling(window))
    )


class InformationLimit(NamedTuple):
    """Limit at which the power of an image reaches that of noise."""

    resolution: float  # Å; ∞ if no ring rises above the floor
    floor: float  # power of the noise


def information_limit(
    spectrum: RadialSpectrum, top: float = 0.15, sigmas: float = 5.0
) -> InformationLimit:
    """Finest period with a ring above the noise floor.

    The floor is the median power of the highest `top` fraction of the rings, assuming
    white noise and no signal in these rings: check in the figure that the spectrum is flat at its
    end. The mean of n/2 independent exponentially distributed powers has the relative deviation
    √(2/n); a ring is significant if it is `sigmas` deviations above the floor.
    """
    floor = float(np.median(spectrum.power[round((1 - top) * len(spectrum.power)) :]))
    level = floor * (1 + sigmas * np.sqrt(2 / spectrum.samples))
    above = np.flatnonzero(spectrum.power[1:] > level[1:]) + 1
    return InformationLimit(
        float(1 / spectrum.frequency[above[-1]]) if len(above) else float("inf"), floor
    )


def bragg_visibility(
    image: Numbers, pixel: Pixel, vectors: Sequence | np.ndarray
) -> Float[np.ndarray, " g"]:
    """Peak power at each reciprocal vector [1/Å] (y, x) over the mean power around it.

    Under a Hann window. The peak is the highest Fourier pixel within a lobe of the vector, the
    background the median between 3 and 8 frequency steps from it over ln 2: the mean of an
    exponential distribution, which other peaks in the ring do not affect.
    """
    power, steps = _hann_power(image, pixel)
    places = np.round(np.atleast_2d(vectors) / steps).astype(int)
    reach = np.abs(places).max(0) + RING
    if (reach >= np.array(power.shape) // 2).any():
        raise ValueError(
            f"the reciprocal vectors reach {np.abs(np.atleast_2d(vectors)).max(0)} 1/Å; the image "
            f"is sampled up to {steps * np.array(power.shape) / 2} 1/Å, less {RING} frequency "
            "steps of surroundings"
        )
    around = np.stack(
        np.meshgrid(*[np.arange(-RING, RING + 1)] * np.ndim(image), indexing="ij"), -1
    )
    distance = np.linalg.norm(around, axis=-1)
    near = around[distance <= LOBE]
    ring = around[(distance > LOBE + 1) & (distance <= RING)]

    def visibility(place: np.ndarray) -> Any:
        peak, background = (power[tuple((place + part).T)] for part in (near, ring))
        return np.max(peak) / (np.median(background) / np.log(2))

    return np.array([visibility(place) for place in places])


def bragg_peaks(
    image: Numbers, pixel: Pixel, count: int = 6, beyond: float = 0.0
) -> Float[np.ndarray, "g d"]:
    """Reciprocal vectors [1/Å] of the strongest peaks beyond a frequency, one per Friedel pair.

    Local maxima of the power under a Hann window, refined by the parabola through the logarithm
    of the power at the peak and its neighbours.
    """
    power, steps = _hann_power(image, pixel)
    shape = np.array(power.shape)
    k = np.stack(np.meshgrid(*(fft.fftfreq(n, 1 / n) for n in shape), indexing="ij"), -1)
    one_of_pair = k @ (2.0 * max(shape)) ** np.arange(len(shape)) > 0  # k or −k
    outside = np.linalg.norm(k * steps, axis=-1) > max(beyond, LOBE * max(steps))
    strongest = brightest(power, one_of_pair & outside, 2 * LOBE + 1, periodic=True)[:count]
    logs = np.log(power + np.finfo(float).tiny)
    refined = [(k[tuple(place)] + between_pixels(logs, place)) * steps for place in strongest]
    return np.array(refined).reshape(-1, len(shape))


def _hann_power(image, pixel: Pixel):
    shape = np.shape(image)
    sides = np.meshgrid(*(np.hanning(n + 1)[:-1] for n in shape), indexing="ij", sparse=True)
    window = np.prod(np.broadcast_arrays(*sides), axis=0)
    steps = 1 / (np.array(shape) * per_axis(pixel, len(shape)))
    return np.abs(transform(windowed(image, window), False)) ** 2, steps


class Edge(NamedTuple):
    """An edge, fitted by an error function."""

    position: float  # Å along the profile
    sigma: float  # Å, of the Gaussian that blurs it
    height: float

    def width(self, low: float = 0.25) -> float:
        """Distance [Å] over which the profile rises from the fraction `low` of its height to 1 −
        low.
        """
        return float(self.sigma * 2 * np.sqrt(2) * erfinv(1 - 2 * low))


def fit_edge(profile: Float[np.ndarray, " n"], step: float) -> Edge:
    """Fit of a + h/2·(1 + erf((x − x₀)/(√2 σ))) to a profile sampled every `step` [Å]."""
    n = len(profile)
    if n < 5:
        raise ValueError(f"a profile of {n} points is too short for an edge; give at least 5")
    x = step * np.arange(n)
    ends = [np.mean(part) for part in (profile[: max(1, n // 5)], profile[-max(1, n // 5) :])]
    middle = step * np.argmin(np.abs(profile - np.mean(ends)))

    def model(x: Any, base: Any, height: Any, position: Any, sigma: Any) -> Any:
        return base + height / 2 * (1 + erf((x - position) / (np.sqrt(2) * sigma)))

    first = (ends[0], ends[1] - ends[0], middle, n * step / 10)
    try:
        (_, height, position, sigma), _ = curve_fit(model, x, profile, first)
    except RuntimeError:
        raise ValueError(
            "no edge fits this profile; use one across a single step between two plateaus"
        ) from None
    return Edge(float(position), float(abs(sigma)), float(height * np.sign(sigma)))


def line_profile(
    image: Float[np.ndarray, "y x"], pixel: Pixel, start: Vector, end: Vector, width: float = 0.0
) -> tuple[np.ndarray, float]:
    """Values along the line between two points (y, x) [Å] from pixel [0, 0], and their step [Å].

    The mean over `width` [Å] across the line, by cubic splines at steps of the finer pixel.
    """
    size = np.array(per_axis(pixel, 2))
    start = np.asarray(start, float)
    end = np.asarray(end, float)
    length = np.linalg.norm(end - start)
    step = size.min()
    if not length > step:
        raise ValueError(f"a profile from {start} to {end} Å is shorter than a pixel")
    along = (end - start) / length
    across = np.array([along[1], -along[0]])
    count = round(length / step) + 1
    shifts = np.linspace(-width / 2, width / 2, round(width / step) + 1)
    travel = np.linspace(0, length, count)
    places = start + travel[:, None, None] * along + shifts[:, None] * across
    values = map_coordinates(image, np.moveaxis(places / size, -1, 0), order=3, mode="nearest")
    return values.mean(1), float(length / (count - 1))
