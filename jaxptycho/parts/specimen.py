"""What the wave passes through."""

import abc
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..physics import windows
from ..physics.grids import Grid
from ..physics.transmission import transmission_function
from ..physics.types import Pair, Scalar, Slices, Stack, Window
from .indexed import PerShot, Varying, plain

Thickness = Scalar | Float[Array, "z"]


class Sliced(eqx.Module):
    """A specimen as the wave meets it: transmission functions and where they lie."""

    transmission: Slices  # entrance face first
    thickness: Varying[Thickness]  # Å, one for all slices or one each
    origin: Varying[Pair]  # Å, position of pixel [0, 0]
    period: tuple[int, int] | None = eqx.field(static=True, default=None)

    def corner(self, position, grid: Grid):
        """First pixel of a shot's window, and the probe's centre in that window [Å]."""
        corner, centre = windows.split_position(position, self.origin, grid)
        return (corner if self.period is None else corner % jnp.asarray(self.period)), centre

    def window(self, corner, grid: Grid) -> Window:
        """The transmissions that one shot sees."""
        return windows.cut(self.transmission, corner, grid.shape)


class AbstractSpecimen(eqx.Module):
    @abc.abstractmethod
    def slices(self, grid: Grid) -> Sliced:
        """Transmission functions of all slices, with their thickness and place."""


class SliceStack(AbstractSpecimen):
    """Free phase and absorption in every slice: t = e^{iφ−a}.

    One slice is a thin specimen; without absorption it is the strong phase approximation.
    A periodic specimen continues beyond its edges.
    """

    phase: Stack  # rad
    absorption: Stack | None  # −ln|t|, ≥ 0 for matter
    thickness: Varying[Thickness]  # Å
    origin: Varying[Pair]  # Å
    periodic: bool = eqx.field(static=True, default=False)
    given: ClassVar = ("thickness", "origin")

    def slices(self, grid):
        return place(exponential(self.phase, self.absorption), self, grid)


class WeakPhaseStack(AbstractSpecimen):
    """The first Born approximation in every slice: t = 1 + iφ − a."""

    phase: Stack  # rad
    absorption: Stack | None
    thickness: Varying[Thickness]  # Å
    origin: Varying[Pair]  # Å
    periodic: bool = eqx.field(static=True, default=False)
    given: ClassVar = ("thickness", "origin")

    def slices(self, grid):
        loss = jnp.zeros_like(self.phase) if self.absorption is None else self.absorption
        return place(jax.lax.complex(1 - loss, self.phase), self, grid)


class PotentialSlices(AbstractSpecimen):
    """The mean potential of every slice: t = e^{iσ(V+iV′)Δz} (Kirkland 2010, eq. 5.25).

    All shots share its thickness, which decides the phase; a `SliceStack` may have one PerShot.
    """

    potential: Stack  # V
    absorptive: Stack | None  # V, ≥ 0
    thickness: Varying[Thickness]  # Å
    origin: Varying[Pair]  # Å
    periodic: bool = eqx.field(static=True, default=False)
    given: ClassVar = ("thickness", "origin")

    def slices(self, grid):
        if isinstance(self.thickness, PerShot):
            raise ValueError("a potential wants one thickness for all shots; it came PerShot (use a SliceStack)")
        per_volt = grid.sigma * jnp.reshape(self.thickness, (-1, 1, 1))
        loss = None if self.absorptive is None else per_volt * self.absorptive
        return place(exponential(per_volt * self.potential, loss), self, grid)

    def scale(self, grid):
        one_radian = 1 / (grid.sigma * jnp.mean(plain(self.thickness)))
        return {"potential": one_radian, "absorptive": one_radian}


def exponential(phase: Stack, absorption: Stack | None) -> Slices:
    """e^{iφ−a}."""
    return transmission_function(phase, jnp.zeros_like(phase) if absorption is None else absorption)


def place(transmission: Slices, specimen, grid: Grid) -> Sliced:
    """Slices with the thickness and origin of `specimen`, continued by a window if periodic."""
    if not specimen.periodic:
        return Sliced(transmission, specimen.thickness, specimen.origin)
    period = transmission.shape[1], transmission.shape[2]
    wrapped = windows.wrap(transmission, grid.shape)
    return Sliced(wrapped, specimen.thickness, specimen.origin, period)
