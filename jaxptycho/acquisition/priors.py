"""Gaussian prior of the geometry of a series: what is known before the first exposure."""

from dataclasses import dataclass, fields

import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Float, Num
from scipy.linalg import block_diag

from .belief import Belief
from .geometry import Exposures, SeriesGeometry
from .precision import in_double_precision


@dataclass(frozen=True)
class GeometryPrior:
    """Standard deviations of all unknowns [Å, rad]; 0 is known exactly.

    Heights of targets: a plane (`height` at the origin, `slope`) and a Gaussian process of standard
    deviation `roughness` and length `roughness_length` on it; a short length leaves each target
    free. Errors of the stage: a smooth `runout` over `runout_length` of tilt, common to both
    branches, an offset of either (`backlash`), and a `jitter` of every tilt.
    """

    lateral: float = 500.0
    height: float = 15_000.0
    slope: float = 0.1
    roughness: float = 2_000.0
    roughness_length: float = 20_000.0
    axis_offset: float = 5_000.0
    runout: float = 3_000.0
    runout_length: float = 0.5
    backlash: float = 2_000.0
    jitter: float = 500.0
    drift: float = 1.0
    motion: float = 0.0
    angle_error: float = 0.0
    azimuth: float = 0.0
    matrix: float = 0.0

    @in_double_precision
    def belief(
        self,
        targets: Float[ArrayLike, "target 3"],
        exposures: Exposures,
        azimuth: float = 0.0,
        matrix: Float[ArrayLike, "2 2"] | None = None,
    ) -> Belief:
        """Belief before the first exposure of targets at nominal (x, y, z) [Å]."""
        nominal = np.asarray(targets, float)
        n, k = exposures.delay.shape
        heights = height_covariance(
            nominal[:, :2], self.height, self.slope, self.roughness, self.roughness_length
        )
        stage = stage_covariance(
            np.asarray(exposures.angle),
            np.asarray(exposures.branch),
            self.runout,
            self.runout_length,
            self.backlash,
            self.jitter,
        )
        mean_and_covariance = {
            "targets": (
                nominal,
                np.kron(np.eye(n) * self.lateral**2, np.diag([1.0, 1.0, 0.0]))
                + np.kron(heights, np.diag([0.0, 0.0, 1.0])),
            ),
            "axis_offsets": (np.zeros((2, 2)), np.eye(4) * self.axis_offset**2),
            "stage": (np.zeros((k, 3)), np.kron(stage, np.eye(3))),
            "drift": (np.zeros((k, 3)), np.eye(3 * k) * self.drift**2),
            "motion": (np.zeros((n, 3)), np.eye(3 * n) * self.motion**2),
            "angle_errors": (np.zeros(k), np.eye(k) * self.angle_error**2),
            "azimuth": (np.asarray(azimuth, float), np.eye(1) * self.azimuth**2),
            "matrix": (np.eye(2) if matrix is None else matrix, np.eye(4) * self.matrix**2),
        }
        names = [field.name for field in fields(SeriesGeometry)]  # the order of `ravel_pytree`
        means = {name: jnp.asarray(mean_and_covariance[name][0], float) for name in names}
        covariances = [mean_and_covariance[name][1] for name in names]
        return Belief(SeriesGeometry(**means), jnp.asarray(block_diag(*covariances)))


def height_covariance(
    places: Float[np.ndarray, "target 2"],
    height: float,
    slope: float,
    roughness: float,
    length: float,
) -> Float[np.ndarray, "target target"]:
    """Covariance of heights on a plane with a Gaussian process (squared exponential) on it [Å²]."""
    apart = np.sum((places[:, None] - places) ** 2, -1)
    plane = height**2 + slope**2 * places @ places.T
    return plane + roughness**2 * np.exp(-apart / (2 * length**2))


def stage_covariance(
    angle: Float[np.ndarray, " tilt"],
    branch: Num[np.ndarray, " tilt"],
    runout: float,
    length: float,
    backlash: float,
    jitter: float,
) -> Float[np.ndarray, "tilt tilt"]:
    """Covariance of one component of the stage error between tilts [Å²].

    Runout has a Matérn kernel of order 3/2, (1 + r) e^(−r): continuous with its slope.
    """
    r = np.sqrt(3.0) * np.abs(angle[:, None] - angle) / length
    same = branch[:, None] == branch
    smooth = runout**2 * (1 + r) * np.exp(-r)
    return smooth + backlash**2 * same + jitter**2 * np.eye(len(r))
