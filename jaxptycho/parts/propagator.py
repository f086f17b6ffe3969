"""Propagators: transfer of the wave between two slices."""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
from jaxtyping import Array

from ..physics import waves
from ..physics.grids import Grid
from ..physics.types import Kernel, Pair, Scalar
from .indexed import PerShot, Varying


class AbstractPropagator(eqx.Module):
    """Propagation of the wave over a distance. A kind of propagator needs only `kernel`."""

    @abc.abstractmethod
    def kernel(self, grid: Grid, distance: Scalar) -> Kernel:
        """Transfer function over `distance` [Å], zero frequency in the corner."""

    def map_tilts(self, change: Callable[[Array], Array]) -> "AbstractPropagator":
        """The propagator with `change(tilts [shot, 2])` in place of those of the shots."""
        raise ValueError(
            f"a {type(self).__name__} has no tilt that differs from shot to shot; give it one "
            '([vary] "propagator.angles" = "shot"), or leave this constraint out'
        )


class Fresnel(AbstractPropagator):
    """The paraxial propagator."""

    def kernel(self, grid: Grid, distance: Scalar) -> Kernel:
        return waves.fresnel(grid, distance)


class AngularSpectrum(AbstractPropagator):
    """The exact (angular spectrum) propagator of free space."""

    def kernel(self, grid: Grid, distance: Scalar) -> Kernel:
        return waves.angular_spectrum(grid, distance)


class Tilted(AbstractPropagator):
    """Any propagator for a specimen tilted by `angles` (y, x) [rad]: one tilt, or PerShot."""

    angles: Varying[Pair]  # rad
    propagator: AbstractPropagator = Fresnel()

    def kernel(self, grid: Grid, distance: Scalar) -> Kernel:
        return self.propagator.kernel(grid, distance) * waves.tilt(grid, distance, self.angles)

    def scale(self, grid: Grid) -> dict[str, Any]:
        return {"angles": 1e-2}

    def map_tilts(self, change: Callable[[Array], Array]) -> AbstractPropagator:
        if not isinstance(self.angles, PerShot):
            return super().map_tilts(change)
        return Tilted(PerShot(change(self.angles.values)), self.propagator)


class BandLimited(AbstractPropagator):
    """Any propagator, limited to the frequencies below `fraction` of Nyquist."""

    propagator: AbstractPropagator = Fresnel()
    fraction: float = eqx.field(static=True, default=2 / 3)

    def kernel(self, grid: Grid, distance: Scalar) -> Kernel:
        return self.propagator.kernel(grid, distance) * waves.band_limit(grid, self.fraction)

    def map_tilts(self, change: Callable[[Array], Array]) -> "BandLimited":
        return BandLimited(self.propagator.map_tilts(change), self.fraction)
