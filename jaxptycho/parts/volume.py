"""A specimen that turns: one potential for all views of a tilt series."""

import math
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..kernels.resampling import INTERPOLATIONS
from ..physics import volumes
from ..physics.types import Pair, Scalar, Stack
from .indexed import PerShot, Varying, as_array
from .specimen import AbstractSpecimen, Sliced, exponential


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
        self.voxel, self.n_slices, self.taper, self.kernel = (z, y, x), int(n_slices), float(taper), kernel
        self.depth, self.shape = None if depth is None else int(depth), None if shape is None else (shape[0], shape[1])
        if min(self.voxel) <= 0 or self.taper < 0:
            raise ValueError(f"voxels of {self.voxel} Å and a taper of {self.taper} Å; wanted lengths above zero")
        if kernel not in INTERPOLATIONS:
            raise ValueError(f"unknown kernel {kernel!r}; known are {', '.join(INTERPOLATIONS)}")
        if any(isinstance(value, PerShot) for value in (tilt, angles, shift)):
            raise ValueError("a volume turns once for all shots of a view; give tilt, angles and shift PerView")
        self.frame  # noqa: B018 - refuses slices that do not divide the depth

    @property
    def frame(self) -> volumes.Frame:
        """The slices of one view, as `physics.volumes` wants them."""
        return volumes.frame(self.potential.shape, self.voxel, self.n_slices, self.depth, self.shape)

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
        return volumes.tapered(self.potential, self.voxel, self.taper)

    @property
    def absorbing(self) -> Stack | None:
        """The absorptive potential [V] that views meet, which falls to vacuum before its faces."""
        return None if self.absorptive is None else volumes.tapered(self.absorptive, self.voxel, self.taper)

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
        return {"potential": one_radian, "absorptive": one_radian, "tilt": turn, "angles": turn, "shift": pixel}

    def _projected(self, values):
        return volumes.beam_slices(values, self.voxel, self.frame, self.tilt, self.angles, kernel=self.kernel)
