"""A volume as the beam of one view meets it: turned, shifted, and summed into slices.

A turn in space is one about y (the tilt), then small ones about x and z, each a resampling of all planes
across its axis, whose third direction is the innermost of memory. Such a resampling is a sparse matrix that
acts on rows: its transpose is gathered as well, never scattered, and is exact. The volume is zero outside.
Kernels: linear, and the interpolating cubic B-spline (Unser, IEEE Signal Process. Mag. 16, 22 (1999)).
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..kernels import sparse_product
from .types import Pair, Scalar, Stack

Cuboid = Float[Array, "p q c"]
Triple = tuple[Scalar, Scalar, Scalar] | Float[Array | np.ndarray, "3"]  # (z, y, x)


class Axis(NamedTuple):
    """Samples along one direction; the axis of the turn goes through sample `middle`."""

    count: int
    step: float  # Å
    middle: int


class Frame(NamedTuple):
    """The slices of the beam's frame: `count` of them, each the sum of `samples` along the beam."""

    count: int
    samples: int
    depth: Axis
    rows: Axis
    columns: Axis

    @property
    def thickness(self) -> float:
        """Of one slice [Å]."""
        return self.samples * self.depth.step


def frame(shape: tuple[int, ...], voxel: tuple[float, ...], slices: int, depth=None, field=None) -> Frame:
    """The beam's frame of a volume of `shape` voxels (z, y, x) of `voxel` Å, which cuts `depth` samples into `slices`.

    Samples along the beam are the z voxels, or equal parts of one where a voxel is much longer in z than in x;
    `depth` is at first as many as the volume has, and `field` its (y, x) pixels.
    """
    parts = max(1, math.ceil(voxel[0] / voxel[2] - 0.5))
    step, count = voxel[0] / parts, depth or shape[0] * parts
    if slices < 1 or count % slices:
        raise ValueError(
            f"{count} samples along the beam cannot be cut into {slices} equal slices; "
            "give a number of slices that divides them, or another depth"
        )
    above = ((count - 1) * step + (1 - shape[0] % 2) * voxel[0]) / 2  # the faces stay where the volume's are
    along = Axis(count, step, math.floor(above / step + 0.5))
    rows, columns = (Axis(n, p, n // 2) for n, p in zip(field or shape[1:], voxel[1:], strict=True))
    return Frame(slices, count // slices, along, rows, columns)


def depth_of(shape: tuple[int, ...], voxel: tuple[float, ...], slices: int, tilts, angles=None) -> int:
    """How many samples along the beam hold the whole volume at all `tilts`, and `angles` about x and z [view, 2], in
    rad, and divide into `slices`."""
    sizes = [n * p for n, p in zip(shape, voxel, strict=True)]
    tilts = np.atleast_1d(np.asarray(tilts, float))
    about_x = np.zeros(len(tilts)) if angles is None else np.reshape(np.asarray(angles, float), (-1, 2))[:, 0]
    level = np.cos(about_x) * (sizes[0] * np.abs(np.cos(tilts)) + sizes[2] * np.abs(np.sin(tilts)))
    longest = np.max(level + np.abs(np.sin(about_x)) * sizes[1])  # a turn about z is across the beam
    step = frame(shape, voxel, 1).depth.step
    return slices * math.ceil(longest / (slices * step) - 1e-6)


def rotation_matrix(angles: Triple) -> Float[Array, "3 3"]:
    """The rotation on (z, y, x) by angles [rad] about y (the tilt: x′ = x cos θ + z sin θ), then about x, then z."""
    (cy, sy), (cx, sx), (cz, sz) = ((jnp.cos(angle), jnp.sin(angle)) for angle in angles)
    tilt = jnp.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
    about_x = jnp.array([[cx, sx, 0], [-sx, cx, 0], [0, 0, 1]])
    return jnp.array([[1, 0, 0], [0, cz, sz], [0, -sz, cz]]) @ about_x @ tilt


def tapered(volume: Stack, voxel: tuple[float, ...], width: float) -> Stack:
    """The volume, brought to zero by sin² over the last `width` [Å] before its faces, where a step would diffract."""
    for axis, step in enumerate(voxel):
        inside = np.minimum(k := np.arange(volume.shape[axis]) + 0.5, k[::-1]) * step
        window = np.sin(np.pi / 2 * np.clip(inside / width, 0, 1)) ** 2 if width else np.ones_like(inside)
        volume = volume * jnp.expand_dims(jnp.asarray(window, volume.dtype), [a for a in range(3) if a != axis])
    return volume


def beam_slices(
    volume: Stack,
    voxel: tuple[float, ...],
    frame: Frame,
    tilt: Scalar,
    angles: Pair | None = None,
    shift: Triple | None = None,
    kernel: str = "cubic",
) -> Float[Array, "_ _ _"]:
    """∫V dz′ of every slice [V·Å] in the beam's frame, where the volume stands turned by `tilt`, then by `angles`
    about x and z [rad], then moved by `shift` (z, y, x) [Å].

    Without angles and shift each plane across y is turned alone, for a third of the time.
    """
    own = [Axis(n, p, n // 2) for n, p in zip(volume.shape, voxel, strict=True)]
    along, rows, columns = frame.depth, frame.rows, frame.columns
    standing, bins = jnp.zeros(2), frame.samples
    planes = volume.swapaxes(1, 2)
    if angles is None and shift is None:
        sums = turn(planes, tilt, standing, (own[0], own[2]), (along, columns), bins, kernel)
        return along.step * resized(sums.swapaxes(1, 2), rows.count)
    about_x, about_z = (0.0, 0.0) if angles is None else angles
    dz, dy, dx = (0.0, 0.0, 0.0) if shift is None else shift
    tilted = turn(planes, tilt, standing, (own[0], own[2]), (along, columns), 1, kernel).swapaxes(1, 2)
    sums = turn(tilted, -about_x, jnp.stack([dz, 0.0]), (along, own[1]), (along, rows), bins, kernel)
    last = jnp.moveaxis(sums, 0, 2)
    return along.step * jnp.moveaxis(
        turn(last, -about_z, jnp.stack([dy, dx]), (rows, columns), (rows, columns), 1, kernel), 2, 0
    )


def resized(stack: Stack, rows: int) -> Float[Array, "z _ X"]:
    """The stack with `rows` rows, cut or continued by zeros, the middle row n//2 kept."""
    before = rows // 2 - stack.shape[1] // 2
    return jax.lax.pad(
        stack, jnp.zeros((), stack.dtype), ((0, 0, 0), (before, rows - stack.shape[1] - before, 0), (0, 0, 0))
    )


class Kernel(NamedTuple):
    """How samples are joined: the weight of one at a distance in samples, and how many there are along an axis."""

    weight: Callable
    taps: int
    splined: bool  # whether it joins the coefficients that interpolate the samples


def hat(d):
    """1 − |d|; where it has a corner, the derivative towards growing places."""
    return jnp.where(jnp.abs(d) <= 1, jnp.where(d <= 0, 1 + d, 1 - d), 0)


def bspline(d):
    """The cubic B-spline."""
    d = jnp.abs(d)
    return jnp.where(d < 1, 2 / 3 - d**2 * (1 - d / 2), jnp.where(d < 2, (2 - d) ** 3 / 6, 0))


KERNELS = {"linear": Kernel(hat, 2, False), "cubic": Kernel(bspline, 4, True)}


def turn(
    planes: Cuboid,
    angle: Scalar,
    shift: Float[Array, "2"],
    source: tuple[Axis, Axis],
    target: tuple[Axis, Axis],
    bins: int = 1,
    kernel: str | Kernel = "cubic",
) -> Float[Array, "_ _ c"]:
    """All planes [p, q] of an array, turned by `angle` [rad], moved by `shift` [Å], and summed over `bins` along p.

    What was at (p, q) is then at p′ = p cos − q sin, q′ = p sin + q cos, measured from the middle of the axes.
    """
    joined = KERNELS[kernel] if isinstance(kernel, str) else kernel
    angle = jnp.asarray(angle, planes.dtype)
    place = (angle, shift.astype(planes.dtype), source, target, bins, joined)
    forward, transposed = _gathering(*place), _gathering_back(*jax.lax.stop_gradient(place[:2]), *place[2:])
    (p, q, columns), rows = planes.shape, planes.reshape(-1, planes.shape[2])
    turned = sparse_product(*forward, *transposed, rows, (p, q) if joined.splined else None)
    return turned.reshape(target[0].count // bins, target[1].count, columns)


class Sparse(NamedTuple):
    """A matrix with the same number of entries in every row; rows stand in groups, those of one row of planes."""

    column: Int[Array, "g t row"]
    value: Float[Array, "g t row"]


def _seen_at(angle, shift, source, target, index):
    """Where the sample `index` of the target comes from: samples of the source, with fractions."""
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    p, q = (i - axis.middle for i, axis in zip(index, target, strict=True))
    (a, b), (c, d) = [[t.step / s.step for t in target] for s in source]  # 1, exactly, where steps are equal
    back = _turned_back(angle, shift)
    row = source[0].middle + cos * a * p + sin * b * q - back[0] / source[0].step
    return row, source[1].middle - sin * c * p + cos * d * q - back[1] / source[1].step


def _gathering(angle, shift, source, target, bins, kernel: Kernel) -> Sparse:
    """The matrix from samples of the source to those of the target, summed over bins."""
    rows, columns = (axis.count for axis in target)
    places = _seen_at(angle, shift, source, target, np.indices((rows, columns)))
    # each axis by itself, once, and not anew for every entry
    (p, of_p), (q, of_q) = jax.lax.optimization_barrier(tuple(map(partial(_near, kernel), places, source)))
    column = p[:, :, None] * source[1].count + q[:, None]
    value = of_p[:, :, None] * of_q[:, None]
    return Sparse(*(array.reshape(rows // bins, -1, columns) for array in (column, value)))


def _near(kernel: Kernel, place: Float[Array, "p q"], axis: Axis):
    """The samples of an axis about each place [p, tap, q], and their weights: none outside."""
    first = jnp.floor(jax.lax.stop_gradient(place)).astype(jnp.int32) + 1 - kernel.taps // 2
    index = first[:, None] + np.arange(kernel.taps)[:, None]
    inside = (index >= 0) & (index < axis.count)
    return jnp.clip(index, 0, axis.count - 1), jnp.where(inside, kernel.weight(index - place[:, None]), 0)


def _gathering_back(angle, shift, source, target, bins, kernel: Kernel) -> Sparse:
    """The transpose of `_gathering`: for each sample of the source, those of the target that see it."""
    index = np.indices([axis.count for axis in source])
    radius = kernel.taps / 2 * math.hypot(*(axis.step for axis in source))
    reach = [radius / axis.step for axis in target]  # of the support, however it is turned
    centre = _seen_at(-angle, -_turned_back(angle, shift), target, source, index)
    first = [jnp.floor(c - r).astype(jnp.int32) + 1 for c, r in zip(centre, reach, strict=True)]
    taps = np.indices([math.ceil(2 * r) for r in reach])
    there = [f + t[..., None, None] for f, t in zip(first, taps, strict=True)]
    seen = _seen_at(angle, shift, source, target, there)
    weight = kernel.weight(index[0] - seen[0]) * kernel.weight(index[1] - seen[1])
    bin_of = first[0] // bins + np.arange((taps.shape[1] + bins - 2) // bins + 1)[:, None, None, None]
    after = there[0] - (bins * bin_of)[:, None]
    summed = jnp.sum(jnp.where((after >= 0) & (after < bins), weight, 0), 1)
    p, q, sizes = bin_of, there[1][0], (target[0].count // bins, target[1].count)
    inside = (p >= 0) & (p < sizes[0]) & (q >= 0) & (q < sizes[1])
    column = jnp.clip(p, 0, sizes[0] - 1) * sizes[1] + jnp.clip(q, 0, sizes[1] - 1)
    return Sparse(*(a.reshape(-1, *a.shape[2:]).swapaxes(0, 1) for a in (column, jnp.where(inside, summed, 0))))


def _turned_back(angle, shift):
    """What the turn back makes of a shift."""
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return jnp.stack([cos * shift[0] + sin * shift[1], cos * shift[1] - sin * shift[0]])
