"""A volume in slabs along y that views turn about x and z as well, by small angles: rows then mix with near ones.

The tilt about y is done within each slab; what follows takes a halo of the tilted volume, wide enough for the largest
angle and for the spline, whose coefficients in one row know of samples some rows away. They are those of the whole
volume, in closed form, so that a slab's edges do not show.
"""

import math

import jax.numpy as jnp
import numpy as np

from ..kernels.resampling import INTERPOLATIONS, Axis, rotate_planes
from ..parts.specimen import Sliced, exponential
from ..parts.volume import Volume
from ..physics.grids import Grid
from .halo import with_halo

DECAY = 2 - math.sqrt(3)  # of a cubic spline's coefficients with each row, signs alternate
SPLINE = 18  # rows after which these are below 10⁻¹⁰
LARGEST = math.radians(2.0)  # angle about x or z that halos are made for in any case
ROWS, WIDEST = 4.0, math.radians(6.0)  # and for more in a small volume: so many rows at its rim, up to this angle


def reach(volume: Volume, rows: int) -> int:
    """Rows that a slab takes from the tilted volume, of so many `rows`, on either side."""
    turns = zip(largest(volume), _halves(volume), strict=True)
    return sum(math.ceil(angle * half + angle**2 * rows / 4) + SPLINE + 2 for angle, half in turns)


def largest(volume: Volume) -> tuple[float, float]:
    """Angles about x and z [rad] that halos are made for."""
    about_x, about_z = (min(max(LARGEST, ROWS / half), WIDEST) for half in _halves(volume))
    return about_x, about_z


def _halves(volume: Volume) -> tuple[float, float]:
    """How far the rim is from the axis of a turn about x and of one about z [rows]."""
    depth, columns = (a.count * a.step / 2 / volume.voxel[1] for a in (volume.frame.depth, volume.frame.columns))
    return depth, columns


def slices(volume: Volume, grid: Grid, number, slabs: int, field: int) -> Sliced:
    """The slices of a slab, the volume's own rows, whose neighbours hold the others; `number` counts slabs from 0.

    `field` is how many rows the slices of the whole volume have. NaN where an angle is beyond `largest`.
    """
    stacks = [values for values in (volume.potential, volume.absorptive) if values is not None]
    phase, *loss = (grid.sigma * _projected(volume, values, number, slabs, field) for values in stacks)
    known = jnp.all(jnp.abs(jnp.asarray(volume.angles)) <= jnp.asarray(largest(volume)))  # pyright: ignore[reportArgumentType]
    phase = jnp.where(known, phase, jnp.nan)
    return Sliced(exponential(phase, loss[0] if loss else None), volume.frame.thickness, volume.origin)


def _projected(volume: Volume, values, number, slabs: int, field: int):
    """As `physics.volumes.beam_slices`, of one slab."""
    (nz, own, nx), (dz, dy, dx) = values.shape, volume.voxel
    depth, columns, total = volume.frame.depth, volume.frame.columns, slabs * own
    wide = reach(volume, total)
    first = number * own - wide  # the halo's first row in the whole volume
    first_of_field = first - total // 2 + field // 2  # in its slices
    rows, standing, (about_x, about_z) = Axis(own + 2 * wide, dy, total // 2 - first), jnp.zeros(2), volume.angles  # pyright: ignore[reportGeneralTypeIssues]
    source, plane = (Axis(nz, dz, nz // 2), Axis(nx, dx, nx // 2)), (depth, rows)
    tilted = rotate_planes(values.swapaxes(1, 2), volume.tilt, standing, source, (depth, columns), 1, volume.kernel)
    lent = with_halo(tilted.swapaxes(1, 2), wide, slabs, 0.0)
    kernel = INTERPOLATIONS[volume.kernel]
    joined = kernel._replace(splined=False)  # coefficients are made here
    lent = _coefficients(lent, 1, first, total) if kernel.splined else lent
    sums = rotate_planes(lent, -about_x, standing, plane, plane, volume.frame.samples, joined)
    index = first_of_field + np.arange(rows.count)
    sums = jnp.where(((index >= 0) & (index < field))[:, None], sums, 0)
    plane, sums = (rows, columns), jnp.moveaxis(sums, 0, 2)
    sums = _coefficients(sums, 0, first_of_field, field) if kernel.splined else sums
    turned = rotate_planes(sums, -about_z, standing, plane, plane, 1, joined)
    return depth.step * jnp.moveaxis(turned[wide : wide + own], 2, 0)


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
    low, high, apart = jnp.maximum(jnp.minimum(a, b), -1), jnp.minimum(jnp.maximum(a, b), n), jnp.abs(a - b)
    ends = (1 - DECAY ** (2.0 * (low + 1))) * (1 - DECAY ** (2.0 * (n - high))) / (1 - DECAY ** (2.0 * (n + 1)))
    return math.sqrt(3) * jnp.where(apart % 2, -1, 1) * DECAY ** (1.0 * apart) * ends
