"""Propagators: transfer of the wave between two slices."""

import abc
from typing import Any

import equinox as eqx

from ..physics import waves
from ..physics.grids import Grid
from ..physics.types import Kernel, Pair, Scalar
from .indexed import Varying


class AbstractPropagator(eqx.Module):
    """Propagation of the wave over a distance. A kind of propagator needs only `kernel`."""

    @abc.abstractmethod
    def kernel(self, grid: Grid, distance: Scalar) -> Kernel:
        """Transfer function over `distance` [Å], zero frequency in the corner."""


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


class BandLimited(AbstractPropagator):
    """Any propagator, limited to the frequencies below `fraction` of Nyquist."""

    propagator: AbstractPropagator = Fresnel()
    fraction: float = eqx.field(static=True, default=2 / 3)

    def kernel(self, grid: Grid, distance: Scalar) -> Kernel:
        return self.propagator.kernel(grid, distance) * waves.band_limit(grid, self.fraction)
