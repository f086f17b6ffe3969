"""Scanned area of the specimen, to which results are restricted."""

import numpy as np
from jaxtyping import Bool, Float
from scipy.spatial import ConvexHull, Delaunay

from ..model import Model, probe_positions
from ..parts.indexed import first_shot
from ..physics.types import Numbers

MIN_BREADTH = 1e-3  # pixels


def origin(model: Model) -> Float[np.ndarray, "2"]:
    """Position of the specimen's pixel [0, 0] (y, x) [Å], relative to `model.frame`."""
    return np.asarray(first_shot(model.specimen).slices_origin(model.grid), float)


def scanned(model: Model) -> tuple[slice, slice]:
    """Rows and columns of the specimen between the outermost positions."""
    shapes = model.specimen.shapes(model.grid)
    shape = shapes.plane
    if shapes.period is not None:
        return slice(0, shape[0]), slice(0, shape[1])
    places = probe_positions(model)
    pixel = np.array(model.grid.pixel)
    index = (places - origin(model)) / pixel
    low, high = np.floor(index.min(0)).astype(int), np.ceil(index.max(0)).astype(int) + 1
    if (low >= shape).any() or (high <= 0).any():
        ends = origin(model), origin(model) + pixel * (np.array(shape) - 1)
        raise ValueError(
            f"no position is on the specimen: they extend from {_pair(places.min(0))} to "
            f"{_pair(places.max(0))} Å (y, x), the specimen from {_pair(ends[0])} to "
            f"{_pair(ends[1])} Å; give both in one frame"
        )
    rows, columns = (slice(max(0, a), min(n, b)) for a, b, n in zip(low, high, shape, strict=True))
    return rows, columns


def outline(model: Model, offset: Numbers = (0.0, 0.0)) -> Delaunay:
    """Convex hull of the scan, moved by `offset` (y, x) [Å], for tests of inside and outside.

    Raises ValueError for positions that enclose no area.
    """
    places = probe_positions(model) + offset
    if not encloses_area(model):
        line = "on one line" if len(places) > 2 else "too few"
        raise ValueError(
            f"the {len(places)} positions of the scan are {line} and enclose no area; a scanned "
            "area is required here, reconstruct from at least three positions that are not on one "
            "line"
        )
    return Delaunay(places[ConvexHull(places).vertices])


def encloses_area(model: Model) -> bool:
    """True if positions deviate by more than a thousandth of a pixel from their best line."""
    places = probe_positions(model)
    offsets = (places - places.mean(0)) / model.grid.pixel
    return len(places) > 2 and bool(
        np.abs(offsets @ np.linalg.svd(offsets)[2][-1]).max() > MIN_BREADTH
    )


def seen(model: Model, shape: tuple[int, ...]) -> Bool[np.ndarray, "Y X"]:
    """Mask of the specimen inside the scan's outline.

    True everywhere if the specimen is periodic or the scan encloses no area.
    """
    places = np.moveaxis(np.indices(shape), 0, -1) * model.grid.pixel + origin(model)
    periodic = model.specimen.shapes(model.grid).period is not None
    if periodic or len(probe_positions(model)) < 4 or not encloses_area(model):
        return np.ones(shape, bool)
    return outline(model).find_simplex(places) >= 0


def _pair(place) -> str:
    return "({:.5g}, {:.5g})".format(*place)
