"""A volume as the beam of one view meets it: turned, shifted, and summed into slices.

A rotation in space is one about y (the tilt), then small ones about x and z, each of all planes
across its axis (`kernels.resampling`). The volume is zero outside.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..kernels.resampling import Axis, rotate_planes
from .types import Pair, Scalar, Stack

Triple = tuple[Scalar, Scalar, Scalar] | Float[Array | np.ndarray, "3"]  # (z, y, x)


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


def frame(
    shape: tuple[int, ...], voxel: tuple[float, ...], slices: int, depth=None, field=None
) -> Frame:
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
    above = (
        (count - 1) * step + (1 - shape[0] % 2) * voxel[0]
    ) / 2  # the faces stay where the volume's are
    along = Axis(count, step, math.floor(above / step + 0.5))
    rows, columns = (Axis(n, p, n // 2) for n, p in zip(field or shape[1:], voxel[1:], strict=True))
    return Frame(slices, count // slices, along, rows, columns)


def depth_of(
    shape: tuple[int, ...], voxel: tuple[float, ...], slices: int, tilts, angles=None
) -> int:
    """How many samples along the beam hold the whole volume at all `tilts`, and `angles` about x and z [view, 2], in
    rad, and divide into `slices`."""
    sizes = [n * p for n, p in zip(shape, voxel, strict=True)]
    tilts = np.atleast_1d(np.asarray(tilts, float))
    about_x = (
        np.zeros(len(tilts))
        if angles is None
        else np.reshape(np.asarray(angles, float), (-1, 2))[:, 0]
    )
    level = np.cos(about_x) * (sizes[0] * np.abs(np.cos(tilts)) + sizes[2] * np.abs(np.sin(tilts)))
    longest = np.max(
        level + np.abs(np.sin(about_x)) * sizes[1]
    )  # a turn about z is across the beam
    step = frame(shape, voxel, 1).depth.step
    return slices * math.ceil(longest / (slices * step) - 1e-6)


def rotation_matrix(angles: Triple) -> Float[Array, "3 3"]:
    """The rotation on (z, y, x) by angles [rad] about y (the tilt: x′ = x cos θ + z sin θ), then about x, then z."""
    (cy, sy), (cx, sx), (cz, sz) = ((jnp.cos(angle), jnp.sin(angle)) for angle in angles)
    tilt = jnp.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
    about_x = jnp.array([[cx, sx, 0], [-sx, cx, 0], [0, 0, 1]])
    return jnp.array([[1, 0, 0], [0, cz, sz], [0, -sz, cz]]) @ about_x @ tilt


def taper_faces(volume: Stack, voxel: tuple[float, ...], width: float) -> Stack:
    """The volume, brought to zero by sin² over the last `width` [Å] before its faces, where a step would diffract."""
    for axis, step in enumerate(voxel):
        inside = np.minimum(k := np.arange(volume.shape[axis]) + 0.5, k[::-1]) * step
        window = (
            np.sin(np.pi / 2 * np.clip(inside / width, 0, 1)) ** 2
            if width
            else np.ones_like(inside)
        )
        volume = volume * jnp.expand_dims(
            jnp.asarray(window, volume.dtype), [a for a in range(3) if a != axis]
        )
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
        sums = rotate_planes(
            planes, tilt, standing, (own[0], own[2]), (along, columns), bins, kernel
        )
        return along.step * resized(sums.swapaxes(1, 2), rows.count)
    about_x, about_z = (0.0, 0.0) if angles is None else angles
    dz, dy, dx = (0.0, 0.0, 0.0) if shift is None else shift
    tilted = rotate_planes(
        planes, tilt, standing, (own[0], own[2]), (along, columns), 1, kernel
    ).swapaxes(1, 2)
    sums = rotate_planes(
        tilted, -about_x, jnp.stack([dz, 0.0]), (along, own[1]), (along, rows), bins, kernel
    )
    last = jnp.moveaxis(sums, 0, 2)
    return along.step * jnp.moveaxis(
        rotate_planes(
            last, -about_z, jnp.stack([dy, dx]), (rows, columns), (rows, columns), 1, kernel
        ),
        2,
        0,
    )


def resized(stack: Stack, rows: int) -> Float[Array, "z _ X"]:
    """The stack with `rows` rows, cut or continued by zeros, the middle row n//2 kept."""
    before = rows // 2 - stack.shape[1] // 2
    return jax.lax.pad(
        stack,
        jnp.zeros((), stack.dtype),
        ((0, 0, 0), (before, rows - stack.shape[1] - before, 0), (0, 0, 0)),
    )
