"""Further specimens stored as slices: transmissions, weak phases and potentials."""

import math
from collections.abc import Callable
from types import MappingProxyType
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ..physics.grids import Grid
from ..physics.types import Pair, Slices, Stack
from .indexed import PerShot, Varying, plain
from .slices import (
    MIN_AMPLITUDE,
    POTENTIALS,
    Of,
    Sliced,
    Thickness,
    as_sliced,
    exponential,
    overlap,
)
from .specimen import AbstractStack


class TransmissionStack(AbstractStack):
    """Free complex transmission t of every slice, stored as re + i·im.

    A descent that has turned a pixel the wrong way returns through t = 0, where one in the phase
    would end a turn of 2π away. Phase and absorption are views: arg t in (−π, π] and −ln|t|; an
    opaque pixel has phase 0.
    """

    transmission: Slices
    thickness: Varying[Thickness]  # Å
    origin: Varying[Pair]  # Å
    periodic: bool = eqx.field(static=True, default=False)
    fixed_by_default: ClassVar = ("thickness", "origin")
    held: ClassVar = MappingProxyType({"phase": "transmission", "absorption": "transmission"})
    vacuum: ClassVar = 1.0
    pixelwise: ClassVar = ("transmission",)
    phase_is_gauge: ClassVar = True

    @property
    def phase(self) -> Stack:
        """Phase [rad] of every slice, in (−π, π]."""
        return jnp.angle(self._visible)

    @property
    def absorption(self) -> Stack:
        """Absorption −ln|t| of every slice, at most that of |t| = 10⁻⁶."""
        return jnp.where(self._opaque, -math.log(MIN_AMPLITUDE), -jnp.log(jnp.abs(self._visible)))

    @property
    def _opaque(self) -> Bool[Array, "z y x"]:
        return self.transmission.real**2 + self.transmission.imag**2 < MIN_AMPLITUDE**2

    @property
    def _visible(self) -> Slices:
        """Transmission with 1 in opaque pixels, where phase and logarithm have no derivative."""
        return jnp.where(self._opaque, 1, self.transmission)

    def slices(self, grid: Grid) -> Sliced:
        return as_sliced(self.transmission, self, grid)

    def map_stacks(
        self, function: Callable[[Stack], Stack], of: tuple[Of, ...] = ("phase", "absorption")
    ) -> "TransmissionStack":
        phase = function(self.phase) if "phase" in of else self.phase
        absorption = function(self.absorption) if "absorption" in of else self.absorption
        changed = exponential(phase, absorption).astype(self.transmission.dtype)
        return eqx.tree_at(lambda s: s.transmission, self, changed)

    def clamp_amplitude(self, grid: Grid, lowest: float, highest: float) -> "TransmissionStack":
        amplitude = jnp.abs(self._visible)
        clamped = self._visible * (jnp.clip(amplitude, lowest, highest) / amplitude)
        clamped = jnp.where(self._opaque, lowest, clamped).astype(self.transmission.dtype)
        return eqx.tree_at(lambda s: s.transmission, self, clamped)

    def transmission_step(self, gradient: Any, step: Stack) -> dict[str, Array]:
        return {"transmission": (-step * gradient.transmission).astype(self.transmission.dtype)}

    def transmission_change(self, change: Slices) -> dict[str, Array]:
        return {"transmission": change.astype(self.transmission.dtype)}

    def _held(self, of: Of) -> Stack:
        return self.phase if of == "phase" else self.absorption


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
