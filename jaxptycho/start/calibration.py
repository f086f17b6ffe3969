"""Properties of the microscope that a dataset reveals before any reconstruction."""

import math

import numpy as np

from ..data import Dataset
from ..data.pixel_statistics import noise_over_mean
from .disc import Disc, rim_of
from .rim import Circle


def bright_field_centre(data: Dataset) -> tuple[float, float]:
    """Centre of the bright-field disc (y, x) [pixels from the pattern's middle]; (0, 0) without."""
    rim = bright_field_rim(data)
    return (0.0, 0.0) if rim is None else (float(rim.centre[0]), float(rim.centre[1]))


def bright_field_semiangle(data: Dataset) -> float | None:
    """Semiangle λR√(dk_y·dk_x) [rad] of the bright-field disc, None without a disc."""
    rim = bright_field_rim(data)
    if rim is None:
        return None
    return data.grid.wavelength * rim.radius * math.sqrt(math.prod(data.grid.dk))


def bright_field_rim(data: Dataset) -> Disc | Circle | None:
    """Rim of the disc in the mean pattern of all views."""
    mask = None if data.mask is None else np.asarray(data.mask, bool)
    return rim_of(data.mean_pattern() * sum(data.n_shots), mask, _noise(data))


def _noise(data: Dataset) -> float:
    """At least the counts of an electron, 1 for patterns without noise."""
    found = noise_over_mean(data.valid_sample)
    return found if found > 0 else 1.0


def effective_distance(focus_to_sample: float, sample_to_detector: float) -> tuple[float, float]:
    """Distance z₁z₂/(z₁+z₂) = z·(M−1)/M² of the equivalent parallel-beam hologram, and its
    magnification M = (z₁+z₂)/z₁ (Fresnel scaling theorem, Paganin 2006, §B); all in one unit."""
    whole = focus_to_sample + sample_to_detector
    return focus_to_sample * sample_to_detector / whole, whole / focus_to_sample
