"""Further specimens stored as slices: weak phases and potentials."""

from types import MappingProxyType
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..physics.grids import Grid
from ..physics.types import Pair, Stack
from .indexed import PerShot, Varying, plain
from .slices import POTENTIALS, Sliced, Thickness, as_sliced, overlap
from .specimen import AbstractStack, exponential


class WeakPhaseStack(AbstractStack):
    """First Born approximation in every slice, t = 1 + iφ − a."""

    phase: Stack  # rad
    absorption: Stack | None
    thickness: Varying[Thickness]  # Å
    origin: Varying[Pair]  # Å
    periodic: bool = eqx.field(static=True, default=False)
    fixed_by_default: ClassVar = ("thickness", "origin")
    held: ClassVar = MappingProxyType({"phase": "phase", "absorption": "absorption"})

    def slices(self, grid: Grid) -> Sliced:
        loss = jnp.zeros_like(self.phase) if self.absorption is None else self.absorption
        return as_sliced(jax.lax.complex(1 - loss, self.phase), self, grid)

    def absorption_at(self, amplitude: float) -> float:
        return 1 - amplitude


class PotentialSlices(AbstractStack):
    """Mean potential of every slice, t = e^{iσ(V+iV′)Δz} (Kirkland 2010, eq. 5.25).

    The thickness, which determines the phase, is shared by all shots; that of a `SliceStack` may
    be PerShot.
    """

    potential: Stack  # V
    absorptive: Stack | None  # V, ≥ 0
    thickness: Varying[Thickness]  # Å
    origin: Varying[Pair]  # Å
    periodic: bool = eqx.field(static=True, default=False)
    fixed_by_default: ClassVar = ("thickness", "origin")
    held: ClassVar = MappingProxyType({"phase": "potential", "absorption": "absorptive"})
    labels: ClassVar = POTENTIALS
    phase_is_gauge: ClassVar = True

    def slices(self, grid: Grid) -> Sliced:
        if isinstance(self.thickness, PerShot):
            raise ValueError(
                "a potential requires one thickness for all shots and got it PerShot; use a "
                "SliceStack"
            )
        per_volt = grid.sigma * jnp.reshape(self.thickness, (-1, 1, 1))
        loss = None if self.absorptive is None else per_volt * self.absorptive
        return as_sliced(exponential(per_volt * self.potential, loss), self, grid)

    def scale(self, grid: Grid) -> dict[str, Any]:
        one_radian = 1 / (grid.sigma * jnp.mean(plain(self.thickness)))
        return {"potential": one_radian, "absorptive": one_radian}

    def radians(self, grid: Grid) -> Float[Array, "z 1 1"]:
        return grid.sigma * self.thicknesses(grid)[:, None, None]

    def _shares(self, thickness: np.ndarray, slices: int) -> Float[np.ndarray, "new old"]:
        """Weight of every old slice in every new one; a potential is a mean over the thickness."""
        return overlap(thickness, slices) * thickness / (thickness.sum() / slices)
