"""What a dataset reveals of the microscope before anything is reconstructed."""

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from ..data import Dataset


def bright_field_centre(data: Dataset) -> tuple[float, float]:
    """Middle of the bright-field disc (y, x) [pixels from the pattern's middle]."""
    disc = bright_field(data)
    middle = [n // 2 for n in disc.shape]
    return tuple(float(np.mean(i) - m) for i, m in zip(np.nonzero(disc), middle, strict=True))  # type: ignore


def bright_field_semiangle(data: Dataset) -> float:
    """Semiangle [rad] of the bright-field disc, from its area: λ√(n·dk_y·dk_x/π) for n pixels."""
    area = bright_field(data).sum() * data.grid.dk[0] * data.grid.dk[1]
    return float(data.grid.wavelength * np.sqrt(area / np.pi))


def bright_field(data: Dataset) -> Bool[np.ndarray, "y x"]:
    """Where the mean pattern is brighter than half of what it is well inside the disc.

    The largest connected region, its holes filled: masked pixels take the mean of those around
    them, so that neither a gap nor a spot far from the disc changes it.
    """
    pattern = mean_of_visible(data)
    inside = np.sort(pattern.ravel())[::-1]
    weights = np.cumsum(inside)
    level = np.median(inside[: max(1, int(np.searchsorted(weights, 0.5 * weights[-1])))])
    labels, count = ndimage.label(pattern > level / 2)
    sizes = ndimage.sum_labels(np.ones_like(pattern), labels, range(1, count + 1))
    return ndimage.binary_fill_holes(labels == 1 + int(np.argmax(sizes)))


def mean_of_visible(data: Dataset) -> Float[np.ndarray, "y x"]:
    """The mean pattern [counts], masked pixels replaced by the nearest that count."""
    pattern = data.mean_pattern()
    if data.mask is None:
        return pattern
    y, x = ndimage.distance_transform_edt(~data.mask, return_distances=False, return_indices=True)
    return pattern[y, x]


def effective_distance(focus_to_sample: float, sample_to_detector: float) -> tuple[float, float]:
    """Distance z₁z₂/(z₁+z₂) = z·(M−1)/M² of the equivalent parallel-beam hologram, and its
    magnification M = (z₁+z₂)/z₁ (Fresnel scaling theorem, Paganin 2006, §B); all in one unit."""
    whole = focus_to_sample + sample_to_detector
    return focus_to_sample * sample_to_detector / whole, whole / focus_to_sample
