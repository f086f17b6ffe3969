"""How the wave travels between two slices."""

import abc

import equinox as eqx

from ..physics import waves
from ..physics.grids import Grid
from ..physics.types import Kernel, Pair, Scalar
from .indexed import Varying


class AbstractPropagator(eqx.Module):
    @abc.abstractmethod
    def kernel(self, grid: Grid, distance: Scalar) -> Kernel:
        """Transfer function over `distance` [Å], zero frequency in the corner."""


class Fresnel(AbstractPropagator):
    """The paraxial propagator."""

    def kernel(self, grid, distance):
        return waves.fresnel(grid, distance)


class AngularSpectrum(AbstractPropagator):
    """The exact propagator of free space."""

    def kernel(self, grid, distance):
        return waves.angular_spectrum(grid, distance)


class Tilted(AbstractPropagator):
    """Any propagator for a specimen tilted by `angles` (y, x) [rad]: one tilt, or PerShot."""

    angles: Varying[Pair]  # rad
    propagator: AbstractPropagator = Fresnel()

    def kernel(self, grid, distance):
        return self.propagator.kernel(grid, distance) * waves.tilt(grid, distance, self.angles)

    def scale(self, grid):
        return {"angles": 1e-2}


class BandLimited(AbstractPropagator):
    """Any propagator without the frequencies beyond `fraction` of Nyquist."""

    propagator: AbstractPropagator = Fresnel()
    fraction: float = eqx.field(static=True, default=2 / 3)

    def kernel(self, grid, distance):
        return self.propagator.kernel(grid, distance) * waves.band_limit(grid, self.fraction)
