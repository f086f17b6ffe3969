"""Projections of a volume in the views of a tilt series."""

import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..physics import volumes
from ..physics.types import Numbers, Scalar, Stack

Images = Float[Array | np.ndarray, "view y x"]
Image = Float[Array, "y x"]
MIN_TILT_RANGE = math.radians(1.0)  # below it the depth is not determined


class Geometry(eqx.Module):
    """Pose of the volume in every view: rotation by tilt and small angles, then a shift.

    The tilt is about y, the angles are about x and z. A shift is the position of the volume's
    middle voxel relative to the middle pixel of the view, as in `parts.Volume`. Without angles a
    view is projected in about half the time.
    """

    tilts: Float[Array, " view"]  # rad
    angles: Float[Array, "view 2"] | None  # rad, about x and z
    shifts: Float[Array, "view 2"]  # Å (y, x)

    def __init__(
        self, tilts: Numbers, angles: Numbers | None = None, shifts: Numbers | None = None
    ):
        """Shifts are zero by default. Raises ValueError for lists of different lengths."""
        self.tilts = jnp.asarray(tilts, float)
        self.angles = None if angles is None else jnp.asarray(angles, float)
        self.shifts = (
            jnp.zeros((len(self.tilts), 2)) if shifts is None else jnp.asarray(shifts, float)
        )
        lengths = {"angles": self.angles, "shifts": self.shifts}
        for name, values in lengths.items():
            if values is not None and values.shape != (len(self.tilts), 2):
                raise ValueError(
                    f"{name} of shape {values.shape} came with {len(self.tilts)} tilts; give two "
                    f"{name} for each view, shape ({len(self.tilts)}, 2)"
                )

    def rotations(self) -> Float[Array, "view 3 3"]:
        """Rotation of every view, on (z, y, x)."""
        angles = (
            jnp.zeros((len(self.tilts), 2), self.tilts.dtype)
            if self.angles is None
            else self.angles
        )
        euler = jnp.concatenate([self.tilts[:, None], angles], 1)
        return jax.vmap(volumes.rotation_matrix)(euler)


def axis_frame(angle: float) -> Float[np.ndarray, "2 2"]:
    """Rotation on (y, x) into the frame whose y is at `angle` [rad] from y towards x."""
    cos = math.cos(angle)
    sin = math.sin(angle)
    return np.array([[cos, sin], [-sin, cos]])


def rotate_about_beam(geometry: Geometry, angle: float) -> Geometry:
    """Geometry of the same views in images rotated by `angle` [rad] from y towards x.

    R_z(angle) R_l, and shifts likewise.
    """
    if not angle:
        return geometry
    small = (
        np.zeros((len(geometry.tilts), 2))
        if geometry.angles is None
        else np.asarray(geometry.angles, float)
    )
    shifts = np.asarray(geometry.shifts, float) @ axis_frame(angle).T
    return Geometry(geometry.tilts, small + np.array([0.0, angle]), shifts)


class Projector(eqx.Module):
    """Linear map of a volume to its projections: `projector(volume)` [view, y, x]."""

    geometry: Geometry
    voxel: tuple[float, float, float] = eqx.field(static=True)  # Å (z, y, x)
    shape: tuple[int, int] = eqx.field(static=True)  # pixels of a view (y, x)
    kernel: str = eqx.field(static=True, default="cubic")

    def __call__(self, volume: Stack) -> Float[Array, "view y x"]:
        """Projections [the volume's unit times Å]."""
        return project(volume, self.voxel, self.geometry, self.shape, self.kernel)


def project(
    volume: Stack,
    voxel: Numbers,
    geometry: Geometry,
    shape: Sequence[int] | None = None,
    kernel: str = "cubic",
) -> Float[Array, "view y x"]:
    """∫V dz′ of every view [V·Å] on `shape` pixels (y, x) of the size of the voxels.

    By default `shape` is that of the volume. The views are computed in sequence, so the adjoint
    accumulates in one volume. Outside the volume is vacuum.
    """
    voxel = three(voxel)
    shape = volume.shape[1:] if shape is None else shape

    def one(view: Any) -> Image:
        tilt, angles, shift = view
        return project_view(volume, voxel, tilt, angles, shift, shape, kernel)

    return jax.lax.map(one, (geometry.tilts, geometry.angles, geometry.shifts))


def project_view(
    volume: Stack,
    voxel: tuple[float, float, float],
    tilt: Scalar,
    angles: Float[Array, "2"] | None,
    shift: Float[Array, "2"],
    shape: Sequence[int],
    kernel: str = "cubic",
) -> Image:
    """∫V dz′ [V·Å] of one view: planes rotated and summed along the beam, then the image moved."""
    sizes = [n * p for n, p in zip(volume.shape, voxel, strict=True)]
    step = volumes.frame(volume.shape, voxel, 1).depth.step
    depth = math.ceil(math.hypot(sizes[0], sizes[2]) / step)  # holds the volume at every tilt
    field = tuple(max(pair) for pair in zip(shape, volume.shape[1:], strict=True))
    frame = volumes.frame(volume.shape, voxel, 1, depth, field)
    return move_image(
        volumes.beam_slices(volume, voxel, frame, tilt, angles, kernel=kernel)[0],
        shift,
        voxel[1:],
        shape,
    )


def move_image(
    image: Float[Array, "_ _"],
    shift: Float[Array, "2"],
    pixel: Sequence[float],
    shape: Sequence[int],
) -> Image:
    """Image moved by `shift` (y, x) [Å] and cut to `shape`, the middle pixels [n//2, n//2] aligned.

    Between its samples it is band-limited (a matrix of sinc, for each axis), outside it is zero: a
    shift in Fourier space, without its periodicity.
    """

    def matrix(axis: int) -> Array:
        source = image.shape[axis]
        target = shape[axis]
        places = (np.arange(target) - target // 2)[:, None] - (np.arange(source) - source // 2)
        return jnp.sinc(
            places.astype(image.dtype) - (shift[axis] / pixel[axis]).astype(image.dtype)
        )

    return jnp.matmul(
        jnp.matmul(matrix(0), image, precision="highest"), matrix(1).T, precision="highest"
    )


def require_series(
    projections: Numbers, voxel: Numbers, geometry: Geometry, volume_shape: Sequence[int]
) -> None:
    """Raise ValueError unless the projections fit to the tilts and to the volume.

    They are to be finite, one for each tilt, and their field inside that of the volume.
    """
    if np.ndim(projections) != 3:
        raise ValueError(
            f"projections of shape {np.shape(projections)} came; stack views of one grid into "
            "[view, y, x], cut or padded to one shape"
        )
    views, *field = np.shape(projections)
    tilts = np.asarray(geometry.tilts)
    if views != len(tilts):
        raise ValueError(
            f"{len(tilts)} tilts came with {views} projections; give one tilt for each of them"
        )
    if np.ptp(tilts) < MIN_TILT_RANGE:
        raise ValueError(
            f"all tilts are {np.rad2deg(tilts.mean()):.4g}° within 1°, which tells nothing of the "
            "depth; give the tilts [rad] of a series"
        )
    if not np.isfinite(projections).all():
        view = int(np.flatnonzero(~np.isfinite(projections).all((1, 2)))[0])
        raise ValueError(
            f"view {view} holds values that are not finite; fill them and give them the weight 0"
        )
    voxel = three(voxel)
    z, y, x = (n * p for n, p in zip(volume_shape, voxel, strict=True))
    seen = np.abs(x * np.cos(tilts)) + np.abs(z * np.sin(tilts))
    view = int(np.argmin(seen))
    wanted = (field[0] * voxel[1], field[1] * voxel[2])
    if y < wanted[0] - voxel[1] or seen[view] < wanted[1] - voxel[2]:
        raise ValueError(
            f"the volume fills {y:.4g} × {seen[view]:.4g} Å (y, x) of the field of "
            f"{wanted[0]:.4g} × {wanted[1]:.4g} Å in view {view}, at "
            f"{np.rad2deg(tilts[view]):.4g}°; give it more voxels, or cut the projections"
        )


def three(voxel: Numbers) -> tuple[float, float, float]:
    """Voxel [Å] along (z, y, x), from one number or three."""
    z, y, x = (float(v) for v in np.broadcast_to(voxel, 3))
    return z, y, x


@eqx.filter_jit
def linearised(projector: Projector, volume: Stack) -> tuple[Images, Float[Array, "view 5 y x"]]:
    """Projections of a volume, and their derivatives.

    By tilt, angles [1/rad] and shift [1/Å] of the view.
    """
    geometry = projector.geometry

    def one(view: Float[Array, "5"]) -> tuple[Array, Array]:
        def of(q: Float[Array, "5"]) -> Array:
            return project_view(
                volume, projector.voxel, q[0], q[1:3], q[3:], projector.shape, projector.kernel
            )

        image, slopes = jax.linearize(of, view)
        return image, jax.vmap(slopes)(jnp.eye(5, dtype=view.dtype))

    angles = jnp.zeros_like(geometry.shifts) if geometry.angles is None else geometry.angles
    return jax.lax.map(one, jnp.concatenate([geometry.tilts[:, None], angles, geometry.shifts], 1))
