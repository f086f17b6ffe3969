"""A first circle through the rim of a bright-field disc, from which `disc.fit_disc` starts."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

FEWEST_OF_RIM = 8  # points that a circle is fitted to
SMOOTH_QUANTA = 100  # that a Gaussian averages over where pixels hold fewer


class Circle(NamedTuple):
    """Centre (y, x) from the middle of a pattern, and radius [pixels]."""

    centre: Float[np.ndarray, "2"]
    radius: float


def first_circle(
    pattern: Float[np.ndarray, "y x"],
    mask: Bool[np.ndarray, "y x"] | None = None,
    per_quantum: float = 1.0,
) -> Circle | None:
    """Circle through the half-height rim of the largest bright region; None without a rim.

    The edges of the camera and of what `mask` hides are no rim, so that a disc that they cut keeps
    its middle. Pixels of few quanta, of `per_quantum` counts, are smoothed.
    """
    filled = filled_in(pattern, mask)
    quanta = max(_level(filled) / per_quantum, 1e-6)
    if quanta < SMOOTH_QUANTA:
        filled = ndimage.gaussian_filter(filled, np.sqrt(SMOOTH_QUANTA / (4 * np.pi * quanta)))
    return _circle_through(_rim(_bright_region(filled), mask))


def filled_in(
    pattern: Float[np.ndarray, "y x"], mask: Bool[np.ndarray, "y x"] | None
) -> Float[np.ndarray, "y x"]:
    """Pattern whose masked pixels have the value of the nearest one that counts."""
    if mask is None:
        return pattern
    nearest: np.ndarray = ndimage.distance_transform_edt(  # pyright: ignore
        ~mask, return_distances=False, return_indices=True
    )
    return pattern[nearest[0], nearest[1]]


def _bright_region(pattern: Float[np.ndarray, "y x"]) -> Bool[np.ndarray, "y x"]:
    """Largest connected region brighter than half of the level of the disc, its holes filled."""
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


def _rim(
    region: Bool[np.ndarray, "y x"], mask: Bool[np.ndarray, "y x"] | None
) -> Float[np.ndarray, "n 2"]:
    """Places (y, x) from the middle, half-way between valid neighbours of which one is inside."""
    seen = np.ones_like(region) if mask is None else np.asarray(mask, bool)
    down = np.argwhere((region[1:] != region[:-1]) & seen[1:] & seen[:-1]) + np.array([0.5, 0.0])
    across = np.argwhere((region[:, 1:] != region[:, :-1]) & seen[:, 1:] & seen[:, :-1])
    return np.concatenate([down, across + np.array([0.0, 0.5])]) - np.array(region.shape) // 2


def _circle_through(rim: Float[np.ndarray, "n 2"]) -> Circle | None:
    """Algebraic least-squares circle through most of the points (Kåsa, IEEE Trans. Instrum. Meas.
    25, 8 (1976)).
    """
    kept = np.ones(len(rim), bool)
    circle = None
    for _ in range(4):  # points of other features are off the circle of most
        if kept.sum() < FEWEST_OF_RIM:
            return None
        *twice, level = np.linalg.lstsq(
            np.c_[rim, np.ones(len(rim))][kept], (rim[kept] ** 2).sum(1), rcond=None
        )[0]
        centre = np.array(twice) / 2
        circle = Circle(centre, float(np.sqrt(max(level + centre @ centre, 0.0))))
        distance = np.abs(np.hypot(*(rim - centre).T) - circle.radius)
        kept = distance <= max(1.0, 3 * float(np.median(distance[kept])))
    return circle
