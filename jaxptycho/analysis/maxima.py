"""Maxima of images, volumes and periodic correlations, on pixels and between them."""

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.ndimage import maximum_filter
from scipy.spatial import KDTree

from ..physics.types import Numbers
from .shells import per_axis


def local_maxima(
    image: Numbers, spacing: Numbers, threshold: float, distance: float
) -> Int[np.ndarray, "n d"]:
    """Indices of local maxima above `threshold`, the brightest first.

    Of maxima closer than `distance` [Å] to one another the brightest is kept; `spacing` [Å] is
    that of the pixels, one or one for each axis.
    """
    image = np.asarray(image, np.result_type(np.asarray(image).dtype, np.float32))
    if not np.isfinite(image).all():
        raise ValueError(
            "the image holds values that are not finite; correct or mask them before looking for "
            "peaks"
        )
    spacing = per_axis(spacing, image.ndim, "spacing of pixels")
    maxima = brightest(image, image > threshold)
    return maxima[separated(maxima * spacing, distance)]


def brightest(
    image: np.ndarray, where: Bool[np.ndarray, "..."], width: int = 3, periodic: bool = False
) -> Int[np.ndarray, "n d"]:
    """Indices of the maxima `where`, the highest first: the largest values in `width` pixels."""
    edge = "wrap" if periodic else "constant"
    highest = maximum_filter(image, width, mode=edge, cval=-np.inf)
    found = np.argwhere(where & (image == highest))
    return found[np.argsort(-image[tuple(found.T)], kind="stable")]


def separated(places: Float[np.ndarray, "n d"], distance: float) -> Bool[np.ndarray, " n"]:
    """Mask of places, in order of importance, at least `distance` from one another."""
    pairs = (
        KDTree(places).query_pairs(distance, output_type="ndarray")
        if len(places)
        else np.zeros((0, 2), int)
    )
    kept = np.zeros(len(places), bool)
    undecided = np.ones(len(places), bool)
    while undecided.any():
        pairs = pairs[undecided[pairs].all(1)]
        first = undecided.copy()
        first[pairs[:, 1]] = False
        kept |= first
        undecided &= ~first
        undecided[pairs[first[pairs[:, 0]], 1]] = False
    return kept


def highest_lag(values: Float[np.ndarray, "..."]) -> Int[np.ndarray, " d"]:
    """Index of the maximum of a periodic correlation, from −n/2 on along each axis."""
    shape = np.array(values.shape)
    peak = np.array(np.unravel_index(np.argmax(values), values.shape))
    return (peak + shape // 2) % shape - shape // 2


def between_pixels(
    values: Float[np.ndarray, "..."], peak: Int[np.ndarray, " d"]
) -> Float[np.ndarray, " d"]:
    """Offset of a maximum of periodic values from the pixel `peak`, by a parabola along each axis.

    0 along an axis where the neighbours are not finite or not below the peak.
    """
    shape = np.array(values.shape)
    steps = np.eye(len(shape), dtype=int)
    before, here, after = (values[tuple(((peak + d * steps) % shape).T)] for d in (-1, 0, 1))
    known = np.isfinite([before, here, after]).all(0)
    before, here, after = (np.where(known, v, 0) for v in (before, here, after))
    bend = before - 2 * here + after
    return np.where(bend < 0, before - after, 0) / np.where(bend < 0, 2 * bend, 1)
