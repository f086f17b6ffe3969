"""Belief about the geometry of a series, and the Kalman filter that measurements update it by.

The errors of all tilts are part of the state, and nothing in it evolves. One update is therefore
exact and also smooths: it corrects earlier tilts and foretells later ones. With tilt readings,
azimuth and image-shift matrix known the problem is linear; with a prior of their errors this is the
extended filter, and `smoothing.maximum_a_posteriori` removes the errors of its linearisation.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from .geometry import Exposures, SeriesGeometry, aim
from .precision import in_double_precision

LOSS = 6.0  # standard deviations of an innovation at which a target counts as lost
HUBER = 3.0  # standard deviations from which an innovation has less weight


class TargetMeasurement(eqx.Module):
    """Image shift and defocus change (three numbers [Å]) of a target at a tilt, as of `aim`.

    Relative to its image at the tilt `reference`, or absolute if that is −1. An infinite `sigma`
    is for what was not measured. Measurements in a stack have leading axes.
    """

    target: Int[Array, "*m"]
    tilt: Int[Array, "*m"]
    reference: Int[Array, "*m"]
    value: Float[Array, "*m 3"]
    sigma: Float[Array, "*m 3"]

    @classmethod
    @in_double_precision
    def of(
        cls, target: Any, tilt: Any, reference: Any, value: Any, sigma: Any
    ) -> "TargetMeasurement":
        """Measurement, or stack of as many as there are rows of `value`, from plain numbers."""
        value = jnp.asarray(value, float)
        stack = value.shape[:-1]
        return cls(
            jnp.asarray(np.broadcast_to(target, stack), jnp.int32),
            jnp.asarray(np.broadcast_to(tilt, stack), jnp.int32),
            jnp.asarray(np.broadcast_to(reference, stack), jnp.int32),
            value,
            jnp.asarray(np.broadcast_to(sigma, value.shape), float),
        )

    def residual(self, geometry: SeriesGeometry, exposures: Exposures) -> Float[Array, "3"]:
        """Measured less expected, in units of sigma; 0 where nothing was measured."""
        here = aim(geometry, exposures, self.target, self.tilt)
        there = aim(geometry, exposures, self.target, self.reference)
        expected = here - jnp.where(self.reference < 0, 0.0, there)
        weight = 1 / self.sigma
        return weight * (jnp.where(weight > 0, self.value, 0.0) - expected)


class Innovation(NamedTuple):
    """Measured less predicted in standard deviations, and whether the target counts as lost."""

    normalised: Float[Array, "*m 3"]
    lost: Bool[Array, "*m"]


class Prediction(NamedTuple):
    """Image shift and change of defocus [Å] for an exposure, with their covariance [Å²]."""

    shift: Float[Array, "2"]
    focus: Float[Array, ""]
    covariance: Float[Array, "3 3"]

    @property
    @in_double_precision
    def sigma(self) -> Float[Array, "3"]:
        """Standard deviations of shift (two) and focus [Å]."""
        return jnp.sqrt(jnp.diagonal(self.covariance))


class Belief(eqx.Module):
    """Mean geometry and the covariance of all its numbers, in the order of `ravel_pytree`."""

    mean: SeriesGeometry
    covariance: Float[Array, "state state"]

    @in_double_precision
    def predict(self, exposures: Exposures, target: int, tilt: int) -> Prediction:
        """Shift and focus that bring a target to its place at a tilt, exposed or not."""
        return _predict(self, exposures, target, tilt)

    @in_double_precision
    def observe(
        self,
        exposures: Exposures,
        measurement: TargetMeasurement,
        loss: float | Float[ArrayLike, "3"] = LOSS,
        huber: float | Float[ArrayLike, "3"] = HUBER,
    ) -> tuple["Belief", Innovation]:
        """Belief after measurements, one after the other if they are stacked.

        A number further than `loss` standard deviations from its prediction changes nothing and is
        reported as lost; beyond `huber` its weight falls as in Huber's loss (infinite: never).
        """
        update = _observe_stack if measurement.target.ndim else _observe_one
        return update(self, exposures, measurement, loss, huber)

    @in_double_precision
    def widen(self, tilt: int, sigma: float) -> "Belief":
        """Belief that the stage has jumped at a tilt, as a second, wider look has confirmed."""
        return _widen(self, tilt, sigma)


@jax.jit
def _predict(belief, exposures, target, tilt):
    vector, unravel = ravel_pytree(belief.mean)
    place = lambda v: aim(unravel(v), exposures, target, tilt)  # noqa: E731
    slope = jax.jacrev(place)(vector)
    mean = place(vector)
    return Prediction(mean[:2], mean[2], slope @ belief.covariance @ slope.T)


@jax.jit
def _widen(belief, tilt, sigma):
    none = jax.tree.map(jnp.zeros_like, belief.mean)
    jump = eqx.tree_at(lambda g: g.stage, none, none.stage.at[tilt].set(sigma))
    return Belief(belief.mean, belief.covariance + jnp.diag(ravel_pytree(jump)[0] ** 2))


@jax.jit
def _observe_stack(belief, exposures, stack, loss, huber):
    return jax.lax.scan(lambda b, m: _observe_one(b, exposures, m, loss, huber), belief, stack)


@jax.jit
def _observe_one(belief, exposures, measurement, loss, huber):
    vector, unravel = ravel_pytree(belief.mean)
    residual = lambda v: measurement.residual(unravel(v), exposures)  # noqa: E731
    innovation = residual(vector)
    slope = -jax.jacrev(residual)(vector)
    cross = belief.covariance @ slope.T
    variance = slope @ cross + jnp.eye(3)
    deviation = jnp.sqrt(jnp.diagonal(variance))
    normalised = innovation / deviation
    lost = jnp.any(jnp.abs(normalised) > loss)
    # weight of Huber's loss, as more noise of the number that is far off
    excess = jnp.maximum(jnp.abs(normalised) / huber, 1.0) - 1.0
    root = jnp.linalg.cholesky(variance + jnp.diag(excess * deviation**2))
    inverse = jax.scipy.linalg.solve_triangular(root, jnp.eye(3), lower=True)
    half = inverse @ cross.T
    step = (inverse @ innovation) @ half
    keep = jnp.where(lost, 0.0, 1.0)
    # three outer products in one pass: a product of matrices this narrow takes twenty times longer
    reduction = sum(row[:, None] * row for row in half)
    after = Belief(unravel(vector + keep * step), belief.covariance - keep * reduction)
    return after, Innovation(normalised, lost)
