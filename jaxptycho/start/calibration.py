"""What a dataset says about the microscope before anything is reconstructed."""

import numpy as np

from ..data import Dataset


def bright_field_centre(data: Dataset) -> tuple[float, float]:
    """Middle of the bright-field disc (y, x) [pixels from the pattern's middle]."""
    disc = bright_field(data)
    middle = [n // 2 for n in disc.shape]
    return tuple(float(np.mean(i) - m) for i, m in zip(np.nonzero(disc), middle, strict=True))  # type: ignore


def bright_field_radius(data: Dataset) -> float:
    """Radius of the bright-field disc [pixels], from its area."""
    return float(np.sqrt(bright_field(data).sum() / np.pi))


def bright_field(data: Dataset) -> np.ndarray:
    """Where the mean pattern is brighter than half of what it is well inside the disc."""
    pattern = data.mean_pattern()
    inside = np.sort(pattern.ravel())[::-1]
    weights = np.cumsum(inside)
    level = np.median(inside[: max(1, int(np.searchsorted(weights, 0.5 * weights[-1])))])
    return pattern > level / 2


def effective_distance(focus_to_sample: float, sample_to_detector: float) -> tuple[float, float]:
    """Distance z₁z₂/(z₁+z₂) = z·(M−1)/M² of the equivalent parallel-beam hologram, and its
    magnification M = (z₁+z₂)/z₁ (Fresnel scaling theorem, Paganin 2006, §B); all in one unit."""
    whole = focus_to_sample + sample_to_detector
    return focus_to_sample * sample_to_detector / whole, whole / focus_to_sample
