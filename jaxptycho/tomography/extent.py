"""Extent of a particle in vacuum, from the aligned projections of its tilt series."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.ndimage import gaussian_filter, label, shift
from scipy.optimize import linprog

from ..physics.types import Numbers
from .projections import Geometry, Images

SMOOTHED = 1.0  # Å, sigma; atoms become a density
RING = 2.0  # Å along the edge of the field, most of which is vacuum around a particle
ABOVE = 3.0  # robust deviations of the ring, by which the mean of a particle exceeds the ring
MOST = 0.75  # of the views
EDGE = 0.05  # of the plateau of a profile, the density at which a particle ends
CERTAIN = 4.0  # deviations of a profile in the vacuum
STEEP = 0.3  # sine of a tilt that tells of the depth
NEAR = 2  # rounds in which a plane of the vacuum is fitted to pixels near it


class Extent(NamedTuple):
    """Smallest box (z, y, x) [Å] about the tilt axis that holds a particle at every tilt."""

    z: float
    y: float
    x: float


def vacuum_around(
    projections: Images, trusted: Bool[np.ndarray, "view y x"], pixel: tuple[float, float]
) -> bool:
    """True if most views show vacuum along the edge of their field, as around a particle.

    `projections` and the others as of `particle_extent`.
    """
    found = []
    for image, good in zip(projections, trusted, strict=True):
        above, spread = _above_vacuum(image, good, pixel)
        inside = above[_inner(image.shape, np.array(image.shape) // 4) & good]
        found.append(np.mean(inside) > ABOVE * spread)
    return float(np.mean(found)) > MOST


def particle_extent(
    projections: Images,
    trusted: Bool[np.ndarray, "view y x"],
    geometry: Geometry,
    pixel: tuple[float, float],
) -> Extent:
    """Smallest box that holds a particle in vacuum.

    `projections` [view, y, x] have the tilt axis along y in their middle pixel, a free constant and
    plane each, and the shifts of `geometry`; only `trusted` pixels count. Each view bounds the
    particle by a slab |x cos θ + z sin θ| ≤ w(θ). The depth is that of all slabs together, but not
    more than the width, unless a slab requires it: a missing wedge hides where the particle ends.
    """
    pairs = zip(projections, trusted, strict=True)
    dense = [_above_vacuum(image, good, pixel)[0] for image, good in pairs]
    shifts = np.asarray(geometry.shifts) / np.asarray(pixel)
    centred = np.stack([shift(one, -by, order=1) for one, by in zip(dense, shifts, strict=True)])
    y = _half_width(centred.mean((0, 2)), pixel[0])
    places = (np.arange(centred.shape[1]) - centred.shape[1] // 2) * pixel[0]
    rows = np.abs(places) <= y
    w = np.array([_half_width(view[rows].mean(0), pixel[1]) for view in centred])
    tilts = np.asarray(geometry.tilts)
    x, deepest = _corners(tilts, w)
    steep = np.abs(np.sin(tilts)) > STEEP
    required = (w - x * np.cos(tilts))[steep] / np.abs(np.sin(tilts[steep]))
    z = min(max(x, *required.tolist()), deepest)
    return Extent(2 * z, 2 * y, 2 * x)


def _above_vacuum(
    image: Float[np.ndarray, "y x"], good: Bool[np.ndarray, "y x"], pixel: Numbers
) -> tuple[Float[np.ndarray, "y x"], float]:
    """Smoothed density above the plane of the vacuum along the edge, and its spread there."""
    smooth = gaussian_filter(
        np.where(good, image, np.median(image[good])), SMOOTHED / np.asarray(pixel)
    )
    ring = good & ~_inner(image.shape, np.ceil(RING / np.asarray(pixel)).astype(int))
    y, x = np.nonzero(ring)
    design = np.stack([np.ones_like(y), y, x], -1).astype(float)
    values = smooth[ring]
    near = values <= np.quantile(values, 0.5)
    for _ in range(NEAR):
        plane = np.linalg.lstsq(design[near], values[near], rcond=None)[0]
        rest = values - design @ plane
        spread = 1.4826 * np.median(np.abs(rest - np.median(rest)))
        near = rest - np.median(rest) <= 2 * spread + 1e-12
    rows, columns = np.indices(image.shape)
    above = np.where(good, smooth - plane[0] - plane[1] * rows - plane[2] * columns, 0.0)
    spread = 1.4826 * np.median(np.abs(rest))
    return above, float(spread)


def _inner(shape: tuple[int, int], margin: Int[np.ndarray, "2"]) -> Bool[np.ndarray, "y x"]:
    """Pixels farther from all edges than a margin [pixels]."""
    away = [np.minimum(np.arange(n), n - 1 - np.arange(n)) for n in shape]
    return (away[0] >= margin[0])[:, None] & (away[1] >= margin[1])


def _half_width(profile: Float[np.ndarray, " n"], step: float) -> float:
    """Largest distance [Å] from the middle pixel, in the longest run above the edge and noise."""
    plateau = np.median(profile[profile > profile.max() / 2])
    noise = 1.4826 * np.median(np.abs(profile[profile < plateau / 4]))
    certain = profile > max(EDGE * plateau, CERTAIN * noise)
    labelled: Any = label(certain)
    runs = labelled[0]
    longest = np.argmax(np.bincount(runs)[1:]) + 1
    return float(step * np.abs(np.flatnonzero(runs == longest) - len(profile) // 2).max())


def _corners(
    tilts: Float[np.ndarray, " view"], w: Float[np.ndarray, " view"]
) -> tuple[float, float]:
    """Largest x and z [Å] with |x cos θ + z sin θ| ≤ w in all views."""
    rows = np.stack([np.cos(tilts), np.sin(tilts)], -1)
    within: Any = {"A_ub": np.concatenate([rows, -rows]), "b_ub": np.concatenate([w, w])}
    both = [linprog(-np.eye(2)[axis], **within, bounds=(None, None)).x[axis] for axis in (0, 1)]
    return float(both[0]), float(both[1])
