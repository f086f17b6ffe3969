"""A specimen that turns: one potential for all views of a tilt series."""

import math
from dataclasses import replace
from types import MappingProxyType
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..kernels.resampling import INTERPOLATIONS
from ..physics import slab_rotation, volumes
from ..physics.types import Pair, Scalar, Stack
from .indexed import PerShot, Varying, add, as_array, plain
from .slices import POTENTIALS, Sliced, Voxels, finite_voxels
from .specimen import AbstractSpecimen, exponential


class Volume(AbstractSpecimen):
    """The potential of every voxel (z, y, x), which each view sees turned: t = e^{iσ∫(V+iV′)dz} in every slice.

    Its middle voxel [n//2, …] lies on the tilt axis, at (0, 0) in the frame of the positions and then moved by
    `shift`, which costs no resampling. A view turns it by `tilt` about y, then by `angles` about x and z; without
    angles a plane is turned alone, in a third of the time. Outside the volume is vacuum, to which it falls over
    the last `taper` Å before its faces. `depth` samples along the beam, at first as many as there are z voxels,
    are summed into `n_slices`; `shape` (y, x) are the pixels of the slices, at first those of the volume. Kernels
    are those of `physics.volumes`. (You, Romanov & Pelz 2025.)
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
    given: ClassVar = ("tilt", "angles", "shift")
    held: ClassVar = MappingProxyType({"phase": "potential", "absorption": "absorptive"})
    labels: ClassVar = POTENTIALS

    def __init__(
        self,
        potential,
        voxel,
        tilt=0.0,
        n_slices=1,
        absorptive=None,
        angles=None,
        shift=(0.0, 0.0),
        depth=None,
        shape=None,
        taper=2.0,
        kernel="cubic",
    ):
        """`voxel` [Å] is one number or (z, y, x). Raises ValueError for slices that do not divide the depth."""
        self.potential, self.absorptive = potential, absorptive
        self.tilt, self.angles, self.shift = (
            as_array(tilt),
            None if angles is None else as_array(angles),
            as_array(shift),
        )
        z, y, x = (float(v) for v in np.broadcast_to(voxel, 3))
        self.voxel, self.n_slices, self.taper, self.kernel = (
            (z, y, x),
            int(n_slices),
            float(taper),
            kernel,
        )
        self.depth, self.shape = (
            None if depth is None else int(depth),
            None if shape is None else (shape[0], shape[1]),
        )
        if min(self.voxel) <= 0 or self.taper < 0:
            raise ValueError(
                f"voxels of {self.voxel} Å and a taper of {self.taper} Å; wanted lengths above zero"
            )
        if kernel not in INTERPOLATIONS:
            raise ValueError(f"unknown kernel {kernel!r}; known are {', '.join(INTERPOLATIONS)}")
        if any(isinstance(value, PerShot) for value in (tilt, angles, shift)):
            raise ValueError(
                "a volume turns once for all shots of a view; give tilt, angles and shift PerView"
            )
        self.frame  # noqa: B018 - refuses slices that do not divide the depth

    @property
    def frame(self) -> volumes.Frame:
        """The slices of one view, as `physics.volumes` wants them."""
        return volumes.frame(
            self.potential.shape, self.voxel, self.n_slices, self.depth, self.shape
        )

    @property
    def above(self) -> float:
        """How far [Å] before the tilt axis the first slice acts, in its middle: there the probe of a model stands.

        Slices so placed are wrong by the square of their thickness (Strang, SIAM J. Numer. Anal. 5, 506 (1968)).
        """
        along, samples = self.frame.depth, self.frame.samples
        return (along.middle - (samples - 1) / 2) * along.step

    @property
    def seen(self) -> Stack:
        """The potential [V] that views meet, which falls to vacuum before its faces."""
        return volumes.taper_faces(self.potential, self.voxel, self.taper)

    @property
    def absorbing(self) -> Stack | None:
        """The absorptive potential [V] that views meet, which falls to vacuum before its faces."""
        return (
            None
            if self.absorptive is None
            else volumes.taper_faces(self.absorptive, self.voxel, self.taper)
        )

    @property
    def origin(self) -> Varying[Pair]:
        """Where the pixel [0, 0] of the slices lies (y, x) [Å]."""
        axes = self.frame.rows, self.frame.columns
        corner = jnp.asarray([-axis.middle * axis.step for axis in axes])
        return jax.tree.map(lambda shift: shift + corner.astype(shift.dtype), self.shift)

    def slices(self, grid):
        if not np.allclose(self.voxel[1:], grid.pixel, rtol=1e-5):
            raise ValueError(
                f"voxels of {self.voxel[1]:.6g} × {self.voxel[2]:.6g} Å (y, x) meet pixels of {grid.pixel[0]:.6g} × "
                f"{grid.pixel[1]:.6g} Å; resample the volume to the pixels of the grid"
            )
        phase = grid.sigma * self._projected(self.seen)
        absorbing = self.absorbing
        loss = None if absorbing is None else grid.sigma * self._projected(absorbing)
        return Sliced(exponential(phase, loss), self.frame.thickness, self.origin)

    def scale(self, grid):
        thickness, pixel = self.frame.thickness, min(grid.pixel)
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

    def radians(self, grid):
        return grid.sigma * self.thicknesses(grid)[:, None, None]

    def slices_origin(self, grid):
        return self.origin

    def shared_thickness(self, grid):
        return jnp.asarray(self.voxel[0], self.potential.dtype)

    def voxel_size(self, grid):
        return self.voxel

    @property
    def position(self):
        return self.shift

    def move(self, by):
        return eqx.tree_at(lambda s: s.shift, self, add(self.shift, by))

    @property
    def rotates(self):
        return True

    def stack_rotation(self):
        about_x, about_z = (0.0, 0.0) if self.angles is None else self.angles
        return volumes.rotation_matrix((self.tilt, about_x, about_z))

    def with_slices(self, grid, slices):
        """The views cut into `slices` slices, as deep as their tilts require; it stays as it is."""
        shape, voxel = self.potential.shape, self.voxel
        depth = volumes.depth_of(shape, voxel, slices, plain(self.tilt), plain(self.angles))
        return replace(self, n_slices=slices, depth=depth)

    def in_voxels(self, grid, like=None):
        return self

    def voxels(self, grid, of="phase"):
        values = finite_voxels(volumes.taper_faces(self.stack(of), self.voxel, self.taper))
        z, y, x = (-(n // 2) * step for n, step in zip(values.shape, self.voxel, strict=True))
        return Voxels(values, self.voxel, (z, y, x), self.labels[of])

    def summary(self):
        sides = " × ".join(f"{step:.4g}" for step in self.voxel)
        voxels = " × ".join(map(str, self.potential.shape))
        return {"volume": f"{voxels} voxels (z, y, x) of {sides} Å"}

    def anchor_row(self, rows):
        """The middle one, which is located on the axis."""
        return rows // 2

    def slab_reach(self):
        if self.angles is None:
            return 0
        return slab_rotation.rows_needed(self.frame, self.potential.shape[1])

    def require_slab_angles(self):
        if self.angles is None:
            return
        angles = np.abs(np.reshape(np.asarray(plain(self.angles)), (-1, 2)))
        limits = np.array(slab_rotation.largest_angles(self.frame))
        view, axis = np.unravel_index(int(np.argmax(angles / limits)), angles.shape)
        if not angles[view, axis] <= limits[axis]:
            raise ValueError(
                f"view {view} is turned about {'xz'[axis]} by "
                f"{np.rad2deg(angles[view, axis]):.3g}°, halos of slabs are made for "
                f"{np.rad2deg(limits[axis]):.3g}°; use one slab (run.slabs = 1), or leave angles "
                "out (volume.angles = false)"
            )

    def slab_slices(self, grid, slab):
        """NaN where an angle is beyond those that halos are made for."""
        part: Any = self._slab(slab.number, slab.count)
        if self.angles is None:
            return part.slices(grid)
        field = self.shape[0] if self.shape else slab.count * self.potential.shape[1]

        def projected(values):
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

    def _slab(self, number, slabs: int) -> AbstractSpecimen:
        """The volume of one slab, tapered only at the faces of the full one."""
        _, rows, columns = self.potential.shape
        z, y, x = self.voxel
        ones = jnp.ones((1, slabs * rows, 1), self.potential.dtype)
        profile = volumes.taper_faces(ones, (math.inf, y, math.inf), self.taper)
        part = jax.lax.dynamic_slice_in_dim(profile, number * rows, rows, 1)

        def tapered(stack):
            return part * volumes.taper_faces(stack, (z, math.inf, x), self.taper)

        shape = rows, columns if self.shape is None else self.shape[1]
        stacks: Any = self.map_stacks(tapered)
        return replace(stacks, shape=shape, taper=0.0)

    def _projected(self, values):
        return volumes.beam_slices(
            values, self.voxel, self.frame, self.tilt, self.angles, kernel=self.kernel
        )
