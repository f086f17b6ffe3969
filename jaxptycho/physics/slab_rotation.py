"""A volume in slabs along y that views rotate about x and z as well, by small angles.

Rows then mix with near ones. The tilt about y is done within each slab; what follows takes a halo
of the tilted volume, wide enough for the largest angle and for the spline, whose coefficients in
one row know of samples some rows away. They are those of the full volume, in closed form, so that
a slab's edges do not show.
"""

import math
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..kernels.resampling import INTERPOLATIONS, Axis, rotate_planes
from .types import Index, Pair, Scalar, Stack
from .volumes import Frame

DECAY = 2 - math.sqrt(3)  # of a cubic spline's coefficients with each row, signs alternate
SPLINE = 18  # rows after which these are below 10⁻¹⁰
LARGEST = math.radians(2.0)  # angle about x or z that halos are made for in any case
ROWS, WIDEST = 4.0, math.radians(6.0)  # in a small volume more: rows at its rim, up to this angle


def rows_needed(frame: Frame, rows: int) -> int:
    """Rows that a slab takes from the tilted volume of so many `rows`, on either side."""
    angles = zip(largest_angles(frame), _half_widths(frame), strict=True)
    return sum(math.ceil(angle * half + angle**2 * rows / 4) + SPLINE + 2 for angle, half in angles)


def largest_angles(frame: Frame) -> tuple[float, float]:
    """Angles about x and z [rad] that halos are made for."""
    about_x, about_z = (min(max(LARGEST, ROWS / half), WIDEST) for half in _half_widths(frame))
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
    """`volumes.beam_slices` of slab `number`, whose neighbours hold the other rows.

    `field` is the number of rows that the slices of the full volume have; `with_halo(rows, reach,
    outside)` adds those of the neighbours.
    """
    (nz, own, nx), (dz, dy, dx) = values.shape, voxel
    depth, columns, total = frame.depth, frame.columns, slabs * own
    wide = rows_needed(frame, total)
    first = number * own - wide  # the halo's first row in the full volume
    first_of_field = first - total // 2 + field // 2  # in its slices
    rows, fixed = Axis(own + 2 * wide, dy, total // 2 - first), jnp.zeros(2)  # pyright: ignore[reportArgumentType]
    about_x, about_z = angles
    source, plane = (Axis(nz, dz, nz // 2), Axis(nx, dx, nx // 2)), (depth, rows)
    tilted = rotate_planes(values.swapaxes(1, 2), tilt, fixed, source, (depth, columns), 1, kernel)
    lent = with_halo(tilted.swapaxes(1, 2), wide, 0.0)
    weights = INTERPOLATIONS[kernel]
    joined = weights._replace(splined=False)  # coefficients are made here
    lent = _coefficients(lent, 1, first, total) if weights.splined else lent
    sums = rotate_planes(lent, -about_x, fixed, plane, plane, frame.samples, joined)
    index = first_of_field + np.arange(rows.count)
    sums = jnp.where(((index >= 0) & (index < field))[:, None], sums, 0)
    plane, sums = (rows, columns), jnp.moveaxis(sums, 0, 2)
    sums = _coefficients(sums, 0, first_of_field, field) if weights.splined else sums
    rotated = rotate_planes(sums, -about_z, fixed, plane, plane, 1, joined)
    return depth.step * jnp.moveaxis(rotated[wide : wide + own], 2, 0)


def _half_widths(frame: Frame) -> tuple[float, float]:
    """Distance of the rim from the axis of a rotation about x and of one about z [rows]."""
    row = frame.rows.step
    depth, columns = (a.count * a.step / 2 / row for a in (frame.depth, frame.columns))
    return depth, columns


def _coefficients(planes, axis: int, first, total: int):
    """Spline coefficients of planes that hold some of `total` rows, from `first` on along `axis`, as the whole has them."""
    starts, sizes = [0, 0], list(planes.shape[:2])
    starts[axis], sizes[axis] = first, total
    p, q = (
        _inverse(start + np.arange(count), size).astype(planes.dtype)
        for start, count, size in zip(starts, planes.shape, sizes, strict=False)
    )
    by_rows = jnp.einsum("ab,bqc->aqc", p, planes, precision="highest")
    return jnp.einsum("ab,pbc->pac", q, by_rows, precision="highest")


def _inverse(index, n: int):
    """Rows and columns `index` of the inverse of the n × n matrix with (1, 4, 1)/6 about its diagonal, 0 beyond it."""
    a, b = jnp.asarray(index)[:, None], jnp.asarray(index)[None, :]
    low, high, apart = (
        jnp.maximum(jnp.minimum(a, b), -1),
        jnp.minimum(jnp.maximum(a, b), n),
        jnp.abs(a - b),
    )
    ends = (
        (1 - DECAY ** (2.0 * (low + 1)))
        * (1 - DECAY ** (2.0 * (n - high)))
        / (1 - DECAY ** (2.0 * (n + 1)))
    )
    return math.sqrt(3) * jnp.where(apart % 2, -1, 1) * DECAY ** (1.0 * apart) * ends
