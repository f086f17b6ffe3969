"""What a dataset says about the microscope before anything is reconstructed."""

import numpy as np

from ..data import Dataset

FEWEST_OF_RIM = 8  # points that a circle is fitted to


def bright_field_centre(data: Dataset) -> tuple[float, float]:
    """Middle of the bright-field disc (y, x) [pixels from the pattern's middle]."""
    return middle_of(bright_field(data), data.mask)


def middle_of(disc: np.ndarray, mask: np.ndarray | None = None) -> tuple[float, float]:
    """Middle (y, x) [pixels from the pattern's middle] of the circle through the rim of a disc.

    The edges of the camera and of what `mask` hides are no rim, so that a disc that they cut keeps its
    middle (algebraic fit: Kåsa, IEEE Trans. Instrum. Meas. 25, 8 (1976)). (0, 0) without a rim.
    """
    both = [_crossings(disc, mask, axis) for axis in (0, 1)]
    rim = np.concatenate(both) - np.array(disc.shape) // 2
    kept = np.ones(len(rim), bool)
    middle = np.zeros(2)
    for _ in range(4):  # points of other features lie off the circle of most
        if kept.sum() < FEWEST_OF_RIM:
            return (0.0, 0.0)
        *twice, level = np.linalg.lstsq(np.c_[rim, np.ones(len(rim))][kept], (rim[kept] ** 2).sum(1), rcond=None)[0]
        middle = np.array(twice) / 2
        distance = np.abs(np.hypot(*(rim - middle).T) - np.sqrt(max(level + middle @ middle, 0.0)))
        kept = distance <= max(1.0, 3 * float(np.median(distance[kept])))
    return float(middle[0]), float(middle[1])


def _crossings(disc: np.ndarray, mask: np.ndarray | None, axis: int) -> np.ndarray:
    """Places (y, x) [pixels] half-way between neighbours along `axis` of which one is in the disc, and both count."""
    disc = np.moveaxis(disc, axis, 0)
    seen = np.ones_like(disc) if mask is None else np.moveaxis(np.asarray(mask, bool), axis, 0)
    found = np.add(np.argwhere((disc[1:] != disc[:-1]) & seen[1:] & seen[:-1]), (0.5, 0.0))
    return found if axis == 0 else found[:, ::-1]


def bright_field_radius(data: Dataset) -> float:
    """Radius of the bright-field disc [pixels], from its area."""
    return float(np.sqrt(bright_field(data).sum() / np.pi))


def bright_field(data: Dataset) -> np.ndarray:
    """Where the mean pattern is brighter than half of what it is well inside the disc."""
    return disc_of(data.mean_pattern())


def disc_of(pattern: np.ndarray) -> np.ndarray:
    """Where a pattern is brighter than half of what it is well inside its disc."""
    inside = np.sort(pattern.ravel())[::-1]
    weights = np.cumsum(inside)
    level = np.median(inside[: max(1, int(np.searchsorted(weights, 0.5 * weights[-1])))])
    return pattern > level / 2


def effective_distance(focus_to_sample: float, sample_to_detector: float) -> tuple[float, float]:
    """Distance z₁z₂/(z₁+z₂) = z·(M−1)/M² of the equivalent parallel-beam hologram, and its
    magnification M = (z₁+z₂)/z₁ (Fresnel scaling theorem, Paganin 2006, §B); all in one unit."""
    whole = focus_to_sample + sample_to_detector
    return focus_to_sample * sample_to_detector / whole, whole / focus_to_sample
