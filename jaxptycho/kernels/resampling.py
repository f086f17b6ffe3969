"""Planes of an array rotated and resampled, as sparse matrices that act on its rows.

The third direction of the array is the innermost of memory. The transpose of such a matrix is
gathered as well, never scattered, and is exact. Outside the array there is zero. Interpolation:
linear, and the interpolating cubic B-spline (Unser, IEEE Signal Process. Mag. 16, 22 (1999)).
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .sparse import sparse_product

Scalar = float | int | Float[Array | np.ndarray, ""]
Cuboid = Float[Array, "p q c"]


class Axis(NamedTuple):
    """Samples along one direction; the axis of rotation goes through sample `middle`."""

    count: int
    step: float  # Å
    middle: int


class Interpolation(NamedTuple):
    """Weight of a sample at a distance [samples], and number of samples along an axis."""

    weight: Callable
    taps: int
    splined: bool  # of the spline coefficients that interpolate the samples


def hat(d: Array) -> Array:
    """Compute 1 − |d|; its derivative at a corner is that on the side of larger d."""
    return jnp.where(jnp.abs(d) <= 1, jnp.where(d <= 0, 1 + d, 1 - d), 0)


def bspline(d: Array):
    """The cubic B-spline."""
    d = jnp.abs(d)
    return jnp.where(d < 1, 2 / 3 - d**2 * (1 - d / 2), jnp.where(d < 2, (2 - d) ** 3 / 6, 0))


INTERPOLATIONS = {
    "linear": Interpolation(hat, 2, False),
    "cubic": Interpolation(bspline, 4, True),
}


def rotate_planes(
    planes: Cuboid,
    angle: Scalar,
    shift: Float[Array, "2"],
    source: tuple[Axis, Axis],
    target: tuple[Axis, Axis],
    bins: int = 1,
    kernel: str | Interpolation = "cubic",
) -> Float[Array, "_ _ c"]:
    """Planes [p, q] of an array rotated by `angle` [rad], moved by `shift` [Å], and summed over
    `bins` samples along p.

    (p, q) goes to p′ = p cos − q sin, q′ = p sin + q cos, measured from the middle of the axes.
    """
    joined = INTERPOLATIONS[kernel] if isinstance(kernel, str) else kernel
    angle = jnp.asarray(angle, planes.dtype)
    place = (angle, shift.astype(planes.dtype), source, target, bins, joined)
    forward = _gathering(*place)
    transposed = _gathering_back(*jax.lax.stop_gradient(place[:2]), *place[2:])
    (p, q, columns) = planes.shape
    rows = planes.reshape(-1, planes.shape[2])
    rotated = sparse_product(*forward, *transposed, rows, (p, q) if joined.splined else None)
    return rotated.reshape(target[0].count // bins, target[1].count, columns)


class Sparse(NamedTuple):
    """A matrix with the same number of entries in every row, in groups for each row of planes."""

    column: Int[Array, "g t row"]
    value: Float[Array, "g t row"]


def _seen_at(angle, shift, source, target, index):
    """Place in the source [samples] of the sample `index` of the target."""
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    p, q = (i - axis.middle for i, axis in zip(index, target, strict=True))
    # exactly 1 for equal steps
    (a, b), (c, d) = [[t.step / s.step for t in target] for s in source]
    back = _rotated_back(angle, shift)
    row = source[0].middle + cos * a * p + sin * b * q - back[0] / source[0].step
    return row, source[1].middle - sin * c * p + cos * d * q - back[1] / source[1].step


def _gathering(angle, shift, source, target, bins, kernel: Interpolation) -> Sparse:
    """The matrix from samples of the source to those of the target, summed over bins."""
    rows, columns = (axis.count for axis in target)
    places = _seen_at(angle, shift, source, target, np.indices((rows, columns)))
    # each axis separately, once: XLA would compute it again for every entry
    near = tuple(map(partial(_near, kernel), places, source))
    (p, of_p), (q, of_q) = jax.lax.optimization_barrier(near)
    column = p[:, :, None] * source[1].count + q[:, None]
    value = of_p[:, :, None] * of_q[:, None]
    return Sparse(*(array.reshape(rows // bins, -1, columns) for array in (column, value)))


def _near(kernel: Interpolation, place: Float[Array, "p q"], axis: Axis):
    """Samples of an axis about each place [p, tap, q], and their weights, zero outside."""
    first = jnp.floor(jax.lax.stop_gradient(place)).astype(jnp.int32) + 1 - kernel.taps // 2
    index = first[:, None] + np.arange(kernel.taps)[:, None]
    inside = (index >= 0) & (index < axis.count)
    weight = jnp.where(inside, kernel.weight(index - place[:, None]), 0)
    return jnp.clip(index, 0, axis.count - 1), weight


def _gathering_back(angle, shift, source, target, bins, kernel: Interpolation) -> Sparse:
    """The transpose of `_gathering`: for each sample of the source those of the target."""
    index = np.indices([axis.count for axis in source])
    radius = kernel.taps / 2 * math.hypot(*(axis.step for axis in source))
    reach = [radius / axis.step for axis in target]  # of the support, at any angle
    centre = _seen_at(-angle, -_rotated_back(angle, shift), target, source, index)
    first = [jnp.floor(c - r).astype(jnp.int32) + 1 for c, r in zip(centre, reach, strict=True)]
    taps = np.indices([math.ceil(2 * r) for r in reach])
    there = [f + t[..., None, None] for f, t in zip(first, taps, strict=True)]
    seen = _seen_at(angle, shift, source, target, there)
    weight = kernel.weight(index[0] - seen[0]) * kernel.weight(index[1] - seen[1])
    reached = np.arange((taps.shape[1] + bins - 2) // bins + 1)
    bin_of = first[0] // bins + reached[:, None, None, None]
    after = there[0] - (bins * bin_of)[:, None]
    summed = jnp.sum(jnp.where((after >= 0) & (after < bins), weight, 0), 1)
    p = bin_of
    q = there[1][0]
    sizes = (target[0].count // bins, target[1].count)
    inside = (p >= 0) & (p < sizes[0]) & (q >= 0) & (q < sizes[1])
    column = jnp.clip(p, 0, sizes[0] - 1) * sizes[1] + jnp.clip(q, 0, sizes[1] - 1)
    both = column, jnp.where(inside, summed, 0)
    return Sparse(*(a.reshape(-1, *a.shape[2:]).swapaxes(0, 1) for a in both))


def _rotated_back(angle, shift):
    """A shift, rotated back."""
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return jnp.stack([cos * shift[0] + sin * shift[1], cos * shift[1] - sin * shift[0]])
