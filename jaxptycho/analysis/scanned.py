"""Where on the specimen the probe was: only there does a result mean anything."""

import numpy as np
from jaxtyping import Bool, Float
from scipy.spatial import ConvexHull, Delaunay

from ..inverse.fields import stack
from ..model import Model, positions
from ..parts.indexed import PerShot, PerView, select


def origin(model: Model) -> Float[np.ndarray, "2"]:
    """Where the specimen's pixel [0, 0] lies (y, x) [Å]."""
    return np.asarray(select(select(model.specimen, PerView, 0), PerShot, 0).origin, float)


def scanned(model: Model) -> tuple[slice, slice]:
    """Rows and columns of the specimen between the outermost positions."""
    shape = stack(model.specimen).shape[-2:]
    if getattr(model.specimen, "periodic", False):
        return slice(0, shape[0]), slice(0, shape[1])
    index = (positions(model) - origin(model)) / model.grid.pixel
    low, high = np.floor(index.min(0)).astype(int), np.ceil(index.max(0)).astype(int) + 1
    return tuple(slice(max(0, a), min(n, b)) for a, b, n in zip(low, high, shape, strict=True))  # type: ignore


def outline(model: Model) -> Delaunay:
    """The convex hull of the scan, which tells inside from outside."""
    places = positions(model)
    jitter = 1e-6 * np.random.default_rng(0).normal(size=places.shape) * model.grid.pixel  # a line has no hull
    return Delaunay((places + jitter)[ConvexHull(places + jitter).vertices])


def seen(model: Model, shape: tuple[int, ...]) -> Bool[np.ndarray, "Y X"]:
    """Where the specimen lies inside the scan's outline; everywhere if it is periodic or the scan is small."""
    places = np.moveaxis(np.indices(shape), 0, -1) * model.grid.pixel + origin(model)
    if getattr(model.specimen, "periodic", False) or len(positions(model)) < 4:
        return np.ones(shape, bool)
    return outline(model).find_simplex(places) >= 0
