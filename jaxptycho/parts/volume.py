"""A specimen that rotates: one potential for all views of a tilt series."""

import math
from collections.abc import Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..kernels.resampling import INTERPOLATIONS
from ..physics import slab_rotation, volumes
from ..physics.grids import Grid
from ..physics.types import Index, Numbers, Pair, PyTree, Scalar, Stack
from .indexed import PerShot, Varying, add, as_array, plain
from .slices import (
    POTENTIALS,
    Lengths,
    Of,
    Slab,
    Sliced,
    Thickness,
    Voxels,
    exponential,
    finite_voxels,
)
from .specimen import AbstractSpecimen


class Volume(AbstractSpecimen):
    """The potential of every voxel (z, y, x), rotated in each view (You, Romanov & Pelz 2025).

    A slice has the transmission t = e^{iσ∫(V+iV′)dz}. The central voxel [n//2, …] is on the tilt
    axis, at (0, 0) in the frame of the positions and then moved by `shift`, which costs no
    resampling. A view rotates the volume by `tilt` about y, then by `angles` about x and z;
    without angles every plane is rotated separately, in a third of the time. The volume is
    surrounded by vacuum, to which it falls over the last `taper` Å before its faces. `depth`
    samples along the beam, by default the number of z voxels, are summed into `n_slices`;
    `shape` (y, x) is the number of pixels of the slices, by default that of the volume. Kernels
    are those of `physics.volumes`.
    """

    potential: Stack  # V
    absorptive: Stack | None  # V, ≥ 0
    tilt: Varying[Scalar]  # rad
    angles: Varying[Pair] | None  # rad, about x and z
    shift: Varying[Pair]  # Å (y, x)
    voxel: tuple[float, float, float] = eqx.field(static=True)  # Å (z, y, x)
    n_slices: int = eqx.field(static=True)
    depth: int | None = eqx.field(static=True)
    shape: tuple[int, int] | None = eqx.field(static=True)
    taper: float = eqx.field(static=True)  # Å
    kernel: str = eqx.field(static=True)
    fixed_by_default: ClassVar = ("tilt", "angles", "shift")
    held: ClassVar = MappingProxyType({"phase": "potential", "absorption": "absorptive"})
    labels: ClassVar = POTENTIALS

    def __init__(
        self,
        potential: Any,
        voxel: Numbers,
        tilt: Any = 0.0,
        n_slices: int | np.integer = 1,
        absorptive: Any = None,
        angles: Any = None,
        shift: Any = (0.0, 0.0),
        depth: int | np.integer | None = None,
        shape: Sequence[int] | None = None,
        taper: float = 2.0,
        kernel: str = "cubic",
    ) -> None:
        """Volume with voxels [Å] of one number or (z, y, x).

        Raises ValueError for a number of slices that does not divide the depth.
        """
        self.potential = potential
        self.absorptive = absorptive
        self.tilt = as_array(tilt)
        self.angles = None if angles is None else as_array(angles)
        self.shift = as_array(shift)
        z, y, x = (float(v) for v in np.broadcast_to(voxel, 3))
        self.voxel = (z, y, x)
        self.n_slices = int(n_slices)
        self.taper = float(taper)
        self.kernel = kernel
        self.depth = None if depth is None else int(depth)
        self.shape = None if shape is None else (shape[0], shape[1])
        if min(self.voxel) <= 0 or self.taper < 0:
            raise ValueError(
                f"voxels of {self.voxel} Å and a taper of {self.taper} Å; give lengths above zero"
            )
        if kernel not in INTERPOLATIONS:
            raise ValueError(f"unknown kernel {kernel!r}; known are {', '.join(INTERPOLATIONS)}")
        if any(isinstance(value, PerShot) for value in (tilt, angles, shift)):
            raise ValueError(
                "a volume is rotated once for all shots of a view; give tilt, angles and shift "
                "PerView"
            )
        self.frame  # noqa: B018

    @property
    def frame(self) -> volumes.Frame:
        """Geometry of the slices of one view, for `physics.volumes`."""
        return volumes.frame(
            self.potential.shape, self.voxel, self.n_slices, self.depth, self.shape
        )

    @property
    def above(self) -> float:
        """Distance [Å] from the middle of the first slice, the plane of the probe, to the tilt
        axis.

        With slices that act in their middle the error is of second order in their thickness
        (Strang, SIAM J. Numer. Anal. 5, 506 (1968)).
        """
        along = self.frame.depth
        samples = self.frame.samples
        return (along.middle - (samples - 1) / 2) * along.step

    @property
    def seen(self) -> Stack:
        """Potential [V] that falls to vacuum before its faces, as seen by the views."""
        return volumes.taper_faces(self.potential, self.voxel, self.taper)

    @property
    def absorbing(self) -> Stack | None:
        """Absorptive potential [V] that falls to vacuum before its faces, as seen by the views."""
        return (
            None
            if self.absorptive is None
            else volumes.taper_faces(self.absorptive, self.voxel, self.taper)
        )

    @property
    def origin(self) -> Varying[Pair]:
        """Position of pixel [0, 0] of the slices (y, x) [Å]."""
        axes = self.frame.rows, self.frame.columns
        corner = jnp.asarray([-axis.middle * axis.step for axis in axes])
        return jax.tree.map(lambda shift: shift + corner.astype(shift.dtype), self.shift)

    def slices(self, grid: Grid) -> Sliced:
        if not np.allclose(self.voxel[1:], grid.pixel, rtol=1e-5):
            raise ValueError(
                f"the volume has voxels of {self.voxel[1]:.6g} × {self.voxel[2]:.6g} Å (y, x), "
                f"and the grid has pixels of {grid.pixel[0]:.6g} × {grid.pixel[1]:.6g} Å; "
                "resample the volume to the pixels of the grid"
            )
        phase = grid.sigma * self._projected(self.seen)
        absorbing = self.absorbing
        loss = None if absorbing is None else grid.sigma * self._projected(absorbing)
        return Sliced(exponential(phase, loss), self.frame.thickness, self.origin)

    def scale(self, grid: Grid) -> dict[str, Any]:
        thickness = self.frame.thickness
        pixel = min(grid.pixel)
        one_radian = 1 / (grid.sigma * thickness)
        edge = max(n * p for n, p in zip(self.potential.shape, self.voxel, strict=True)) / 2
        turn = math.atan(pixel / edge)
        return {
            "potential": one_radian,
            "absorptive": one_radian,
            "tilt": turn,
            "angles": turn,
            "shift": pixel,
        }

    def radians(self, grid: Grid) -> Float[Array, "z 1 1"]:
        return grid.sigma * self.thicknesses(grid)[:, None, None]

    def slices_origin(self, grid: Grid) -> Varying[Pair]:
        return self.origin

    def shared_thickness(self, grid: Grid) -> Thickness:
        return jnp.asarray(self.voxel[0], self.potential.dtype)

    def voxel_size(self, grid: Grid) -> Lengths:
        return self.voxel

    @property
    def position(self) -> Varying[Pair]:
        return self.shift

    def move(self, by: PyTree) -> "Volume":
        return eqx.tree_at(lambda s: s.shift, self, add(self.shift, by))

    @property
    def rotates(self) -> bool:
        return True

    def stack_rotation(self) -> Float[Array, "3 3"]:
        about_x, about_z = (0.0, 0.0) if self.angles is None else self.angles
        return volumes.rotation_matrix((self.tilt, about_x, about_z))

    def with_slices(self, grid: Grid, slices: int) -> "Volume":
        """The same volume, its views cut into `slices` slices of the depth that their tilts
        require.
        """
        shape = self.potential.shape
        voxel = self.voxel
        depth = volumes.depth_of(shape, voxel, slices, plain(self.tilt), plain(self.angles))
        return replace(self, n_slices=slices, depth=depth)

    def in_voxels(self, grid: Grid, like: AbstractSpecimen | None = None) -> "Volume":
        return self

    def voxels(self, grid: Grid, of: Of = "phase") -> Voxels:
        values = finite_voxels(volumes.taper_faces(self.stack(of), self.voxel, self.taper))
        z, y, x = (-(n // 2) * step for n, step in zip(values.shape, self.voxel, strict=True))
        return Voxels(values, self.voxel, (z, y, x), self.labels[of])

    def summary(self) -> dict[str, str]:
        sides = " × ".join(f"{step:.4g}" for step in self.voxel)
        voxels = " × ".join(map(str, self.potential.shape))
        return {"volume": f"{voxels} voxels (z, y, x) of {sides} Å"}

    def anchor_row(self, rows: int) -> int:
        """Index of the middle row, which is located on the axis."""
        return rows // 2

    def slab_reach(self) -> int:
        if self.angles is None:
            return 0
        return slab_rotation.rows_needed(self.frame, self.potential.shape[1])

    def require_slab_angles(self) -> None:
        if self.angles is None:
            return
        angles = np.abs(np.reshape(np.asarray(plain(self.angles)), (-1, 2)))
        limits = np.array(slab_rotation.largest_angles(self.frame))
        view, axis = np.unravel_index(int(np.argmax(angles / limits)), angles.shape)
        if not angles[view, axis] <= limits[axis]:
            raise ValueError(
                f"view {view} is rotated about {'xz'[axis]} by "
                f"{np.rad2deg(angles[view, axis]):.3g}°, halos of slabs allow at most "
                f"{np.rad2deg(limits[axis]):.3g}°; use one slab (run.slabs = 1), or leave angles "
                "out (volume.angles = false)"
            )

    def slab_slices(self, grid: Grid, slab: Slab) -> Sliced:
        """Slices of one slab; NaN where an angle exceeds the limit of the halos."""
        part: Any = self._slab(slab.number, slab.count)
        if self.angles is None:
            return part.slices(grid)
        field = self.shape[0] if self.shape else slab.count * self.potential.shape[1]

        def projected(values: Stack) -> Array:
            position = slab.number, slab.count, field
            seen = part.tilt, part.angles, part.kernel
            volts = slab_rotation.slab_projections(
                values, part.voxel, part.frame, *seen, *position, slab.with_halo
            )
            return grid.sigma * volts

        phase = projected(part.potential)
        loss = None if part.absorptive is None else projected(part.absorptive)
        limits = jnp.asarray(slab_rotation.largest_angles(part.frame))
        known = jnp.all(jnp.abs(jnp.asarray(part.angles)) <= limits)
        phase = jnp.where(known, phase, jnp.nan)
        return Sliced(exponential(phase, loss), part.frame.thickness, part.origin)

    def _slab(self, number: Index, slabs: int) -> AbstractSpecimen:
        """The volume of one slab, tapered only at the faces of the full one."""
        _, rows, columns = self.potential.shape
        z, y, x = self.voxel
        ones = jnp.ones((1, slabs * rows, 1), self.potential.dtype)
        profile = volumes.taper_faces(ones, (math.inf, y, math.inf), self.taper)
        part = jax.lax.dynamic_slice_in_dim(profile, number * rows, rows, 1)

        def tapered(stack: Stack) -> Stack:
            return part * volumes.taper_faces(stack, (z, math.inf, x), self.taper)

        shape = rows, columns if self.shape is None else self.shape[1]
        stacks: Any = self.map_stacks(tapered)
        return replace(stacks, shape=shape, taper=0.0)

    def _projected(self, values: Stack) -> Float[Array, "_ _ _"]:
        return volumes.beam_slices(
            values, self.voxel, self.frame, self.tilt, self.angles, kernel=self.kernel
        )
