"""A volume in the frame of the beam of one view: rotated, shifted, and summed into slices.

A rotation in space is one about y (the tilt), then small ones about x and z, each applied to all
planes perpendicular to its axis (`kernels.resampling`). The volume is zero outside.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..kernels.resampling import Axis, rotate_planes
from .types import Numbers, Pair, Scalar, Stack

Triple = tuple[Scalar, Scalar, Scalar] | Float[Array | np.ndarray, "3"]  # (z, y, x)


class Frame(NamedTuple):
    """Slices in the beam's frame: `count` slices, each the sum of `samples` along the beam."""

    count: int  # pyright: ignore[reportIncompatibleMethodOverride]
    samples: int
    depth: Axis
    rows: Axis
    columns: Axis

    @property
    def thickness(self) -> float:
        """Thickness of one slice [Å]."""
        return self.samples * self.depth.step


def frame(
    shape: tuple[int, ...],
    voxel: tuple[float, ...],
    slices: int,
    depth: int | None = None,
    field: tuple[int, ...] | None = None,
) -> Frame:
    """Frame of the beam for a volume of `shape` voxels (z, y, x) of `voxel` Å.

    `depth` samples are cut into `slices`. Samples along the beam are the z voxels, or equal parts
    of them where a voxel is much longer in z than in x; `depth` is by default the number of
    samples of the volume, and `field` (y, x) its number of pixels.
    """
    parts = max(1, math.ceil(voxel[0] / voxel[2] - 0.5))
    step = voxel[0] / parts
    count = depth or shape[0] * parts
    if slices < 1 or count % slices:
        raise ValueError(
            f"{count} samples along the beam cannot be cut into {slices} equal slices; give a "
            "number of slices that divides them, or another depth"
        )
    above = (
        (count - 1) * step + (1 - shape[0] % 2) * voxel[0]
    ) / 2  # keeps the faces of the volume
    along = Axis(count, step, math.floor(above / step + 0.5))
    rows, columns = (Axis(n, p, n // 2) for n, p in zip(field or shape[1:], voxel[1:], strict=True))
    return Frame(slices, count // slices, along, rows, columns)


def depth_of(
    shape: tuple[int, ...],
    voxel: tuple[float, ...],
    slices: int,
    tilts: Numbers,
    angles: Numbers | None = None,
) -> int:
    """Number of samples along the beam that contain the full volume, a multiple of `slices`.

    `tilts` [view] and `angles` about x and z [view, 2] are in rad.
    """
    sizes = [n * p for n, p in zip(shape, voxel, strict=True)]
    tilts = np.atleast_1d(np.asarray(tilts, float))
    about_x = (
        np.zeros(len(tilts))
        if angles is None
        else np.reshape(np.asarray(angles, float), (-1, 2))[:, 0]
    )
    level = np.cos(about_x) * (sizes[0] * np.abs(np.cos(tilts)) + sizes[2] * np.abs(np.sin(tilts)))
    # a rotation about z is about the beam
    longest = np.max(level + np.abs(np.sin(about_x)) * sizes[1])
    step = frame(shape, voxel, 1).depth.step
    return slices * math.ceil(longest / (slices * step) - 1e-6)


def rotation_matrix(angles: Triple) -> Float[Array, "3 3"]:
    """Rotation on (z, y, x) by angles [rad] about y, then x, then z.

    The tilt about y is x′ = x cos θ + z sin θ.
    """
    (cy, sy), (cx, sx), (cz, sz) = ((jnp.cos(angle), jnp.sin(angle)) for angle in angles)
    tilt = jnp.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
    about_x = jnp.array([[cx, sx, 0], [-sx, cx, 0], [0, 0, 1]])
    return jnp.array([[1, 0, 0], [0, cz, sz], [0, -sz, cz]]) @ about_x @ tilt


def taper_faces(volume: Stack, voxel: tuple[float, ...], width: float) -> Stack:
    """The volume, tapered to zero by sin² over the last `width` [Å] before its faces.

    A step at the faces would diffract.
    """
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
    """Projected potential ∫V dz′ of every slice [V·Å] in the beam's frame.

    The volume is rotated by `tilt`, then by `angles` about x and z [rad], then moved by `shift`
    (z, y, x) [Å]. Without angles and shift each plane perpendicular to y is rotated separately,
    in a third of the time.
    """
    own = [Axis(n, p, n // 2) for n, p in zip(volume.shape, voxel, strict=True)]
    along = frame.depth
    rows = frame.rows
    columns = frame.columns
    standing = jnp.zeros(2)
    bins = frame.samples
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
    """The stack with `rows` rows, cropped or padded by zeros about the middle row n//2."""
    before = rows // 2 - stack.shape[1] // 2
    return jax.lax.pad(
        stack,
        jnp.zeros((), stack.dtype),
        ((0, 0, 0), (before, rows - stack.shape[1] - before, 0), (0, 0, 0)),
    )
