"""Detectors: counts from the exit wave. Wrap detectors in one another to combine effects."""

import abc
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..physics import detection, waves
from ..physics.grids import Grid
from ..physics.types import Intensity, Pair, Pattern, Scalar
from ..physics.waves import Exit
from .indexed import Varying
from .propagator import AbstractPropagator, Fresnel


class AbstractDetector(eqx.Module):
    """Expected counts of a shot from its exit wave. A kind of detector needs only `detect`."""

    @abc.abstractmethod
    def detect(self, exit: Exit, grid: Grid, offset: Pair = (0.0, 0.0)) -> Pattern:
        """Expected counts of one shot, the detector's centre in the corner [0, 0].

        `exit.wave` is the exit wave. `offset` (y, x) [Å] is the displacement of the probe from
        pixel [N//2, N//2] of its window; the probe is at rest in the laboratory, so a detector
        in real space removes this displacement.
        """

    def sampling(self, grid: Grid) -> tuple[tuple[float, float], str]:
        """Distance between the pixels of a pattern (y, x), and its unit."""
        inner = getattr(self, "detector", None)
        return (grid.dk, "1/Å") if inner is None else inner.sampling(grid)


class Ideal(AbstractDetector):
    """The far field on a perfect camera."""

    def detect(self, exit: Exit, grid: Grid, offset: Pair = (0.0, 0.0)) -> Pattern:
        return waves.far_field(exit)


class NearField(AbstractDetector):
    """An in-line hologram `distance` [Å] behind the specimen.

    Behind a focus, `distance` is the effective z·(M−1)/M² and the pixel that of the detector
    over M (`start.calibration.effective_distance`).
    """

    distance: Varying[Scalar]  # Å
    propagator: AbstractPropagator = Fresnel()

    def detect(self, exit: Exit, grid: Grid, offset: Pair = (0.0, 0.0)) -> Pattern:
        back = waves.phase_ramp(grid, (-offset[0], -offset[1]))
        return waves.near_field(exit, back * self.propagator.kernel(grid, self.distance))

    def sampling(self, grid: Grid) -> tuple[tuple[float, float], str]:
        return grid.pixel, "Å"

    def scale(self, grid: Grid) -> dict[str, Any]:
        return {"distance": min(grid.pixel) ** 2 / grid.wavelength}


class Descanned(AbstractDetector):
    """The entire pattern displaced by `shift` (y, x) [1/Å].

    PerShot it describes residual descan, shared a detector off the optical axis.
    """

    shift: Varying[Pair]  # 1/Å
    detector: AbstractDetector = Ideal()

    def detect(self, exit: Exit, grid: Grid, offset: Pair = (0.0, 0.0)) -> Pattern:
        moved = exit._replace(entering=waves.tilted(exit.entering, grid, self.shift))
        return self.detector.detect(moved, grid, offset)

    def scale(self, grid: Grid) -> dict[str, Any]:
        return {"shift": max(grid.dk)}


class Gain(AbstractDetector):
    """Counts times `factor`: the intensity of each shot if PerShot, a gain map if an image."""

    factor: Varying[Scalar | Intensity]
    detector: AbstractDetector = Ideal()

    def detect(self, exit: Exit, grid: Grid, offset: Pair = (0.0, 0.0)) -> Pattern:
        return jnp.multiply(self.factor, self.detector.detect(exit, grid, offset))


class Background(AbstractDetector):
    """Background counts added to every pattern: one number or an image."""

    counts: Varying[Scalar | Intensity]
    detector: AbstractDetector = Ideal()

    def detect(self, exit: Exit, grid: Grid, offset: Pair = (0.0, 0.0)) -> Pattern:
        return self.detector.detect(exit, grid, offset) + self.counts


class Blurred(AbstractDetector):
    """Counts spread over neighbouring pixels by a Gaussian of `sigma` [pixels]."""

    sigma: Varying[Scalar]
    detector: AbstractDetector = Ideal()

    def detect(self, exit: Exit, grid: Grid, offset: Pair = (0.0, 0.0)) -> Pattern:
        pattern = self.detector.detect(exit, grid, offset)
        return detection.filter_pattern(pattern, detection.gaussian_mtf(pattern.shape, self.sigma))


class ModulationTransfer(AbstractDetector):
    """Counts filtered by a measured transfer function, `mtf[0]` at zero, `mtf[-1]` at Nyquist."""

    mtf: Varying[Float[Array, " q"]]
    detector: AbstractDetector = Ideal()

    def detect(self, exit: Exit, grid: Grid, offset: Pair = (0.0, 0.0)) -> Pattern:
        pattern = self.detector.detect(exit, grid, offset)
        return detection.filter_pattern(pattern, detection.radial_mtf(pattern.shape, self.mtf))


class SuperSampled(AbstractDetector):
    """A model sampled finer than the detector: `factor`² model pixels sum to one detector pixel."""

    detector: AbstractDetector = Ideal()
    factor: int = eqx.field(static=True, default=2)

    def detect(self, exit: Exit, grid: Grid, offset: Pair = (0.0, 0.0)) -> Pattern:
        return detection.sum_pixels(self.detector.detect(exit, grid, offset), self.factor)

    def sampling(self, grid: Grid) -> tuple[tuple[float, float], str]:
        (y, x), unit = self.detector.sampling(grid)
        return (self.factor * y, self.factor * x), unit


class Cropped(AbstractDetector):
    """A model that extends beyond the detector; its central `shape` is kept."""

    shape: tuple[int, int] = eqx.field(static=True)
    detector: AbstractDetector = Ideal()

    def detect(self, exit: Exit, grid: Grid, offset: Pair = (0.0, 0.0)) -> Pattern:
        return detection.crop(self.detector.detect(exit, grid, offset), self.shape)


class Masked(AbstractDetector):
    """Dead pixels and beam stops: zero counts are expected where `mask` is False.

    Batches hold zero counts there as well, so these pixels do not contribute to any loss.
    """

    mask: Varying[Bool[Array, "y x"]]  # the detector's centre in the corner
    detector: AbstractDetector = Ideal()

    def detect(self, exit: Exit, grid: Grid, offset: Pair = (0.0, 0.0)) -> Pattern:
        return jnp.where(self.mask, self.detector.detect(exit, grid, offset), 0.0)
