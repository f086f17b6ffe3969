"""Where on the specimen the probe was: only there does a result mean anything."""

import numpy as np
from jaxtyping import Bool, Float
from scipy.spatial import ConvexHull, Delaunay

from ..model import Model, positions
from ..parts.indexed import first_shot


def origin(model: Model) -> Float[np.ndarray, "2"]:
    """Where the specimen's pixel [0, 0] lies (y, x) [Å]."""
    return np.asarray(first_shot(model.specimen).slices_origin(model.grid), float)


def scanned(model: Model) -> tuple[slice, slice]:
    """Rows and columns of the specimen between the outermost positions."""
    shapes = model.specimen.shapes(model.grid)
    shape = shapes.plane
    if shapes.period is not None:
        return slice(0, shape[0]), slice(0, shape[1])
    places, pixel = positions(model), np.array(model.grid.pixel)
    index = (places - origin(model)) / pixel
    low, high = np.floor(index.min(0)).astype(int), np.ceil(index.max(0)).astype(int) + 1
    if (low >= shape).any() or (high <= 0).any():
        ends = origin(model), origin(model) + pixel * (np.array(shape) - 1)
        raise ValueError(
            f"no position lies on the specimen: they go from {_pair(places.min(0))} to {_pair(places.max(0))} Å (y, x), "
            f"the specimen from {_pair(ends[0])} to {_pair(ends[1])} Å; give both in one frame"
        )
    return tuple(slice(max(0, a), min(n, b)) for a, b, n in zip(low, high, shape, strict=True))  # type: ignore


def outline(model: Model) -> Delaunay:
    """The convex hull of the scan, which tells inside from outside."""
    places = positions(model)
    jitter = 1e-6 * np.random.default_rng(0).normal(size=places.shape) * model.grid.pixel  # a line has no hull
    return Delaunay((places + jitter)[ConvexHull(places + jitter).vertices])


def seen(model: Model, shape: tuple[int, ...]) -> Bool[np.ndarray, "Y X"]:
    """Where the specimen lies inside the scan's outline; everywhere if it is periodic or the scan is small."""
    places = np.moveaxis(np.indices(shape), 0, -1) * model.grid.pixel + origin(model)
    periodic = model.specimen.shapes(model.grid).period is not None
    if periodic or len(positions(model)) < 4:
        return np.ones(shape, bool)
    return outline(model).find_simplex(places) >= 0


def _pair(place) -> str:
    return "({:.5g}, {:.5g})".format(*place)
