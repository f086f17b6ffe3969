"""Projection of a volume in slabs along y, with small rotations about x and z.

These rotations mix neighbouring rows. The tilt about y is done within each slab; the others use a
halo of the tilted volume, wide enough for the largest angle and for the spline, whose
coefficients in one row depend on samples several rows away. They equal those of the full volume,
in closed form, so that the edges of slabs cause no artefact.
"""

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..kernels.resampling import INTERPOLATIONS, Axis, rotate_planes
from .types import Index, Pair, Scalar, Stack
from .volumes import Frame

DECAY = 2 - math.sqrt(3)  # of a cubic spline's coefficients per row, with alternating signs
SPLINE = 18  # rows, after which these are below 10⁻¹⁰
MIN_LIMIT = math.radians(2.0)  # angle about x or z that halos of all volumes allow
RIM_ROWS = 4.0  # rows of displacement at the rim that halos of small volumes allow,
MAX_LIMIT = math.radians(6.0)  # up to this angle


def rows_needed(frame: Frame, rows: int) -> int:
    """Number of halo rows that a slab of a tilted volume of `rows` rows requires on either side."""
    angles = zip(largest_angles(frame), _half_widths(frame), strict=True)
    return sum(math.ceil(angle * half + angle**2 * rows / 4) + SPLINE + 2 for angle, half in angles)


def largest_angles(frame: Frame) -> tuple[float, float]:
    """Largest angles about x and z [rad] for which the halos suffice."""
    about_x, about_z = (
        min(max(MIN_LIMIT, RIM_ROWS / half), MAX_LIMIT) for half in _half_widths(frame)
    )
    return about_x, about_z


def slab_projections(
    values: Stack,
    voxel: tuple[float, ...],
    frame: Frame,
    tilt: Scalar,
    angles: Pair,
    kernel: str,
    number: Index,
    slabs: int,
    field: int,
    with_halo: Callable[[Stack, int, float], Stack],
) -> Float[Array, "_ _ _"]:
    """Slices `volumes.beam_slices` of slab `number`; neighbours hold the other rows.

    `field` is the number of rows of the slices of the full volume; `with_halo(rows, reach,
    outside)` adds the rows of the neighbours.
    """
    (nz, own, nx) = values.shape
    (dz, dy, dx) = voxel
    depth = frame.depth
    columns = frame.columns
    total = slabs * own
    wide = rows_needed(frame, total)
    first = number * own - wide  # the halo's first row in the full volume
    first_of_field = first - total // 2 + field // 2  # in its slices
    middle: Any = total // 2 - first
    rows = Axis(own + 2 * wide, dy, middle)
    fixed = jnp.zeros(2)
    about_x, about_z = angles
    source = (Axis(nz, dz, nz // 2), Axis(nx, dx, nx // 2))
    plane = (depth, rows)
    tilted = rotate_planes(values.swapaxes(1, 2), tilt, fixed, source, (depth, columns), 1, kernel)
    lent = with_halo(tilted.swapaxes(1, 2), wide, 0.0)
    weights = INTERPOLATIONS[kernel]
    joined = weights._replace(splined=False)  # coefficients are computed here
    lent = _coefficients(lent, 1, first, total) if weights.splined else lent
    sums = rotate_planes(lent, -about_x, fixed, plane, plane, frame.samples, joined)
    index = first_of_field + np.arange(rows.count)
    sums = jnp.where(((index >= 0) & (index < field))[:, None], sums, 0)
    plane = (rows, columns)
    sums = jnp.moveaxis(sums, 0, 2)
    sums = _coefficients(sums, 0, first_of_field, field) if weights.splined else sums
    rotated = rotate_planes(sums, -about_z, fixed, plane, plane, 1, joined)
    return depth.step * jnp.moveaxis(rotated[wide : wide + own], 2, 0)


def _half_widths(frame: Frame) -> tuple[float, float]:
    """Distance of the rim from the axis of a rotation about x and of one about z [rows]."""
    row = frame.rows.step
    depth, columns = (a.count * a.step / 2 / row for a in (frame.depth, frame.columns))
    return depth, columns


def _coefficients(
    planes: Float[Array, "p q c"], axis: int, first: Index, total: int
) -> Float[Array, "p q c"]:
    """Spline coefficients of planes with a part of `total` rows, from `first` on along `axis`.

    They equal those of the full volume.
    """
    starts: list[Index] = [0, 0]
    sizes = list(planes.shape[:2])
    starts[axis], sizes[axis] = first, total
    p, q = (
        _inverse(start + np.arange(count), size).astype(planes.dtype)
        for start, count, size in zip(starts, planes.shape, sizes, strict=False)
    )
    by_rows = jnp.einsum("ab,bqc->aqc", p, planes, precision="highest")
    return jnp.einsum("ab,pbc->pac", q, by_rows, precision="highest")


def _inverse(index: Int[Array | np.ndarray, " a"], n: int) -> Float[Array, "a a"]:
    """Rows and columns `index` of the inverse of the n × n matrix with diagonals (1, 4, 1)/6."""
    a, b = jnp.asarray(index)[:, None], jnp.asarray(index)[None, :]
    low = jnp.maximum(jnp.minimum(a, b), -1)
    high = jnp.minimum(jnp.maximum(a, b), n)
    apart = jnp.abs(a - b)
    ends = (
        (1 - DECAY ** (2.0 * (low + 1)))
        * (1 - DECAY ** (2.0 * (n - high)))
        / (1 - DECAY ** (2.0 * (n + 1)))
    )
    return math.sqrt(3) * jnp.where(apart % 2, -1, 1) * DECAY ** (1.0 * apart) * ends
