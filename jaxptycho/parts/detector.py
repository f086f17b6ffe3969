"""What the camera makes of the exit wave. Wrap detectors in one another to add effects."""

import abc

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
    @abc.abstractmethod
    def detect(self, exit: Exit, grid: Grid, offset: Pair = (0.0, 0.0)) -> Pattern:
        """Expected counts of one shot, the detector's middle in the corner [0, 0], of the wave `exit` (`exit.wave`).

        `offset` (y, x) [Å] is how far from pixel [N//2, N//2] of its window the probe stands;
        in the laboratory the probe rests, so a detector that sees real space undoes it.
        """


class Ideal(AbstractDetector):
    """The far field on a perfect camera."""

    def detect(self, exit, grid, offset=(0.0, 0.0)):
        return waves.far_field(exit)


class NearField(AbstractDetector):
    """An in-line hologram `distance` [Å] behind the specimen.

    Behind a focus, `distance` is the effective z·(M−1)/M² and the pixel that of the detector
    over M (`start.calibration.effective_distance`).
    """

    distance: Varying[Scalar]  # Å
    propagator: AbstractPropagator = Fresnel()

    def detect(self, exit, grid, offset=(0.0, 0.0)):
        back = waves.phase_ramp(grid, (-offset[0], -offset[1]))
        return waves.near_field(exit, back * self.propagator.kernel(grid, self.distance))

    def scale(self, grid):
        return {"distance": min(grid.pixel) ** 2 / grid.wavelength}


class Descanned(AbstractDetector):
    """The whole pattern moved by `shift` (y, x) [1/Å]: what is left of the scan behind the
    specimen when PerShot, a detector off its axis when shared."""

    shift: Varying[Pair]  # 1/Å
    detector: AbstractDetector = Ideal()

    def detect(self, exit, grid, offset=(0.0, 0.0)):
        moved = exit._replace(entering=waves.tilted(exit.entering, grid, self.shift))
        return self.detector.detect(moved, grid, offset)

    def scale(self, grid):
        return {"shift": max(grid.dk)}


class Gain(AbstractDetector):
    """Counts times `factor`: per-shot intensity when PerShot, a gain map when an image."""

    factor: Varying[Scalar | Intensity]
    detector: AbstractDetector = Ideal()

    def detect(self, exit, grid, offset=(0.0, 0.0)):
        return self.factor * self.detector.detect(exit, grid, offset)


class Background(AbstractDetector):
    """Counts that come from elsewhere, added to every pattern: one number or an image."""

    counts: Varying[Scalar | Intensity]
    detector: AbstractDetector = Ideal()

    def detect(self, exit, grid, offset=(0.0, 0.0)):
        return self.detector.detect(exit, grid, offset) + self.counts


class Blurred(AbstractDetector):
    """Counts spread over neighbouring pixels by a Gaussian of `sigma` [pixels]."""

    sigma: Varying[Scalar]
    detector: AbstractDetector = Ideal()

    def detect(self, exit, grid, offset=(0.0, 0.0)):
        pattern = self.detector.detect(exit, grid, offset)
        return detection.filter_pattern(pattern, detection.gaussian_mtf(pattern.shape, self.sigma))


class ModulationTransfer(AbstractDetector):
    """Counts through a measured transfer function: `mtf` from zero to `mtf[-1]` at Nyquist."""

    mtf: Varying[Float[Array, "q"]]
    detector: AbstractDetector = Ideal()

    def detect(self, exit, grid, offset=(0.0, 0.0)):
        pattern = self.detector.detect(exit, grid, offset)
        return detection.filter_pattern(pattern, detection.radial_mtf(pattern.shape, self.mtf))


class SuperSampled(AbstractDetector):
    """A model finer than the detector: `factor`² model pixels are summed to each of its pixels."""

    detector: AbstractDetector = Ideal()
    factor: int = eqx.field(static=True, default=2)

    def detect(self, exit, grid, offset=(0.0, 0.0)):
        return detection.sum_pixels(self.detector.detect(exit, grid, offset), self.factor)


class Cropped(AbstractDetector):
    """A model that reaches further than the detector, whose `shape` is kept."""

    shape: tuple[int, int] = eqx.field(static=True)
    detector: AbstractDetector = Ideal()

    def detect(self, exit, grid, offset=(0.0, 0.0)):
        return detection.crop(self.detector.detect(exit, grid, offset), self.shape)


class Masked(AbstractDetector):
    """Dead pixels and beam stops: where `mask` is False nothing is expected.

    Batches hold no counts there either, so every loss is blind to these pixels.
    """

    mask: Varying[Bool[Array, "y x"]]  # the detector's middle in the corner
    detector: AbstractDetector = Ideal()

    def detect(self, exit, grid, offset=(0.0, 0.0)):
        return jnp.where(self.mask, self.detector.detect(exit, grid, offset), 0.0)
