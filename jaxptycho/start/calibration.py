"""Properties of the microscope that a dataset reveals before any reconstruction."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from ..data import Dataset

FEWEST_OF_RIM = 8  # points that a circle is fitted to
SMOOTH_COUNTS = 100  # that a Gaussian averages over where pixels of the mean pattern hold fewer


def bright_field_centre(data: Dataset) -> tuple[float, float]:
    """Middle of the bright-field disc (y, x) [pixels from the pattern's middle]."""
    return middle_of(bright_field(data), data.mask)


def middle_of(disc: np.ndarray, mask: np.ndarray | None = None) -> tuple[float, float]:
    """Middle (y, x) [pixels from the pattern's middle] of the circle through the rim of a disc.

    The edges of the camera and of what `mask` hides are no rim, so that a disc that they cut keeps
    its middle (algebraic fit: Kåsa, IEEE Trans. Instrum. Meas. 25, 8 (1976)). (0, 0) without a rim.
    """
    both = [_crossings(disc, mask, axis) for axis in (0, 1)]
    rim = np.concatenate(both) - np.array(disc.shape) // 2
    kept = np.ones(len(rim), bool)
    middle = np.zeros(2)
    for _ in range(4):  # points of other features are off the circle of most
        if kept.sum() < FEWEST_OF_RIM:
            return (0.0, 0.0)
        *twice, level = np.linalg.lstsq(
            np.c_[rim, np.ones(len(rim))][kept], (rim[kept] ** 2).sum(1), rcond=None
        )[0]
        middle = np.array(twice) / 2
        distance = np.abs(np.hypot(*(rim - middle).T) - np.sqrt(max(level + middle @ middle, 0.0)))
        kept = distance <= max(1.0, 3 * float(np.median(distance[kept])))
    return float(middle[0]), float(middle[1])


def _crossings(disc: np.ndarray, mask: np.ndarray | None, axis: int) -> np.ndarray:
    """Places (y, x) [pixels] half-way between neighbours along `axis` of which one is in the disc,
    and both count.
    """
    disc = np.moveaxis(disc, axis, 0)
    seen = np.ones_like(disc) if mask is None else np.moveaxis(np.asarray(mask, bool), axis, 0)
    found = np.add(np.argwhere((disc[1:] != disc[:-1]) & seen[1:] & seen[:-1]), (0.5, 0.0))
    return found if axis == 0 else found[:, ::-1]


def bright_field_semiangle(data: Dataset) -> float:
    """Semiangle [rad] of the bright-field disc, from its area: λ√(n·dk_y·dk_x/π) for n pixels."""
    area = bright_field(data).sum() * data.grid.dk[0] * data.grid.dk[1]
    return float(data.grid.wavelength * np.sqrt(area / np.pi))


def bright_field(data: Dataset) -> Bool[np.ndarray, "y x"]:
    """Mask of pixels brighter than half of the mean pattern well inside the disc.

    Masked pixels take the value of the nearest valid one, and pixels of few counts are smoothed.
    """
    pattern = mean_of_visible(data)
    counts = max(_level(pattern) * sum(data.n_shots), 1e-6)
    if counts < SMOOTH_COUNTS:
        pattern = ndimage.gaussian_filter(pattern, np.sqrt(SMOOTH_COUNTS / (4 * np.pi * counts)))
    return disc_of(pattern)


def disc_of(pattern: Float[np.ndarray, "y x"]) -> Bool[np.ndarray, "y x"]:
    """Mask of pixels brighter than half of a pattern well inside its disc: the largest connected
    region, its holes filled.
    """
    labels: np.ndarray = ndimage.label(pattern > _level(pattern) / 2)[0]  # pyright: ignore
    sizes = np.bincount(labels.ravel())
    if len(sizes) < 2:
        return np.zeros(pattern.shape, bool)
    return np.asarray(ndimage.binary_fill_holes(labels == 1 + int(np.argmax(sizes[1:]))))


def _level(pattern: Float[np.ndarray, "y x"]) -> float:
    """Median of the brightest pixels that hold half of all counts."""
    inside = np.sort(pattern.ravel())[::-1]
    weights = np.cumsum(inside)
    return float(np.median(inside[: max(1, int(np.searchsorted(weights, 0.5 * weights[-1])))]))


def mean_of_visible(data: Dataset) -> Float[np.ndarray, "y x"]:
    """The mean pattern [counts], masked pixels replaced by the nearest that count."""
    pattern = data.mean_pattern()
    if data.mask is None:
        return pattern
    indices: Any = ndimage.distance_transform_edt(
        ~data.mask, return_distances=False, return_indices=True
    )
    y, x = indices
    return pattern[y, x]


def effective_distance(focus_to_sample: float, sample_to_detector: float) -> tuple[float, float]:
    """Distance z₁z₂/(z₁+z₂) = z·(M−1)/M² of the equivalent parallel-beam hologram, and its
    magnification M = (z₁+z₂)/z₁ (Fresnel scaling theorem, Paganin 2006, §B); all in one unit."""
    whole = focus_to_sample + sample_to_detector
    return focus_to_sample * sample_to_detector / whole, whole / focus_to_sample
