"""Step of the detector of a reading, and what a sample of its patterns shows."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ...data.bad_pixels import bad_pixels
from ...data.pixel_statistics import pixel_statistics
from ...physics.grids import electron_wavelength
from ...start.disc import rim_of
from .frames import Frames
from .reading import Reading, Value

DETECTOR = ("dk_inverse_angstrom", "detector_step_mrad", "pixel_angstrom")
SAMPLE = 256  # patterns that a mean is taken of
SAMPLE_PIXELS = 2**24
SAMPLE_BLOCK = 16
LEAST_RADIUS = 2.0  # pixels of a disc
LARGEST_RADIUS = 0.45  # of a disc, in sides of the pattern


def wavelength_in(values: Mapping[str, Any]) -> float | None:
    """Wavelength [Å] of the beam, if it is known."""
    if values.get("voltage_kv") is not None:
        return electron_wavelength(values["voltage_kv"])
    return values.get("wavelength_angstrom")


def frequency_step(
    values: Mapping[str, Any], wavelength: float | None, shape: tuple[int, ...]
) -> tuple[float, float] | None:
    """Step of the detector (y, x) [1/Å], if it is known."""
    if "dk_inverse_angstrom" in values:
        step = np.asarray(values["dk_inverse_angstrom"], float)
    elif "pixel_angstrom" in values:
        step = 1 / (np.asarray(shape) * np.asarray(values["pixel_angstrom"], float))
    elif "detector_step_mrad" in values and wavelength is not None:
        step = 1e-3 * np.asarray(values["detector_step_mrad"], float) / wavelength
    else:
        return None
    y, x = np.broadcast_to(step, 2).tolist()
    return y, x


def with_detector(reading: Reading) -> Reading:
    """Reading with the detector's step in 1/Å, measured from the disc of the semiangle where
    nothing else tells it.
    """
    plain = {name: value.value for name, value in reading.values.items()}
    wavelength = wavelength_in(plain)
    found = next((name for name in DETECTOR if name in plain), None)
    if found in ("dk_inverse_angstrom", "pixel_angstrom"):
        return reading
    step = frequency_step(plain, wavelength, reading.patterns.shape[1:])
    if step is not None and found is not None:
        value = Value(step, reading[found].origin, reading[found].source)
    elif wavelength is not None and "semiangle_mrad" in plain and found is None:
        radius = disc_radius(reading)
        if radius is None:
            return reading
        one = 1e-3 * plain["semiangle_mrad"] / wavelength / radius
        value = Value((one, one), "measured", f"disc of {radius:.2f} pixels, for the semiangle")
    else:
        return reading
    return replace(reading, values={**reading.values, "dk_inverse_angstrom": value})


def disc_radius(reading: Reading) -> float | None:
    """Radius of the bright-field disc [pixels]; None where there is no disc."""
    seen = pixel_statistics(sample_blocks(reading.patterns))
    mask = np.ones(seen.total.shape, bool) if reading.mask is None else reading.mask
    defects = bad_pixels(seen, mask)  # one of them may outshine the disc
    mask = mask & ~np.any([~mask, *defects.values()], axis=0)
    rim = rim_of(np.where(mask, seen.total, 0.0), mask)
    if rim is None or not LEAST_RADIUS <= rim.radius <= LARGEST_RADIUS * min(mask.shape):
        return None
    return rim.radius


def sample_of(frames: Frames) -> np.ndarray:
    """Numbers of up to `SAMPLE` patterns, spread evenly over all."""
    count = min(max(SAMPLE_PIXELS // math.prod(frames.shape[1:]), SAMPLE_BLOCK), SAMPLE)
    return np.unique(np.linspace(0, frames.shape[0] - 1, count).astype(int))


def sample_blocks(frames: Frames) -> Iterator[np.ndarray]:
    """Blocks of the sample."""
    shots = sample_of(frames)
    for start in range(0, len(shots), SAMPLE_BLOCK):
        yield frames[shots[start : start + SAMPLE_BLOCK]]
