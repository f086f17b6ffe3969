"""Geometry of a finished series: maximum a posteriori of all measurements at the same time.

Gauss–Newton in whitened unknowns u, geometry = prior mean + P^½ u, whose prior is ½|u|²: also for
unknowns that are known exactly. For linear measurements one step is the answer of the filter.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from .belief import HUBER, Belief, TargetMeasurement
from .geometry import Exposures, SeriesGeometry
from .precision import in_double_precision


def huber_loss(residual: Float[Array, "*s"], huber: float = HUBER) -> Float[Array, ""]:
    """Sum of ½r², beyond `huber` of huber·|r| − ½huber² (Huber, 1964)."""
    size = jnp.abs(residual)
    bound = jnp.minimum(size, huber)
    return jnp.sum(bound * (size - bound / 2))


def negative_log_posterior(
    whitened: Float[Array, " state"],
    prior: Belief,
    root: Float[Array, "state state"],
    exposures: Exposures,
    measurements: TargetMeasurement,
    huber: float = HUBER,
) -> Float[Array, ""]:
    """½|u|² and the misfit of stacked measurements, of the geometry prior mean + root · u."""
    geometry = _geometry(whitened, prior, root)
    return jnp.sum(whitened**2) / 2 + huber_loss(
        _residuals(geometry, exposures, measurements), huber
    )


@in_double_precision
def maximum_a_posteriori(
    prior: Belief,
    exposures: Exposures,
    measurements: TargetMeasurement,
    steps: int = 8,
    huber: float = HUBER,
) -> Belief:
    """Belief after all stacked measurements: the most probable geometry, with its covariance.

    Measurements further than `huber` standard deviations off are given less weight, and none is
    excluded: leave those out that the filter reported as lost.
    """
    return _maximum_a_posteriori(prior, exposures, measurements, steps, huber)


@jax.jit
def square_root(covariance: Float[Array, "state state"]) -> Float[Array, "state state"]:
    """Symmetric root of a covariance, which may be singular."""
    values, vectors = jnp.linalg.eigh(covariance)
    return vectors * jnp.sqrt(jnp.maximum(values, 0.0)) @ vectors.T


def _geometry(whitened: Any, prior: Belief, root: Any) -> SeriesGeometry:
    vector, unravel = ravel_pytree(prior.mean)
    return unravel(vector + root @ whitened)


def _residuals(geometry, exposures, measurements):
    return jax.vmap(lambda m: m.residual(geometry, exposures))(measurements)


@jax.jit
def _maximum_a_posteriori(prior, exposures, measurements, steps, huber):
    root = square_root(prior.covariance)

    def residuals(u: Array) -> Array:
        return _residuals(_geometry(u, prior, root), exposures, measurements).ravel()

    def normal_equations_at(u: Array) -> tuple[Array, Array]:
        r = residuals(u)
        slope = jax.jacfwd(residuals)(u)
        weight = jnp.minimum(huber / jnp.abs(r), 1.0)
        return jnp.eye(len(u)) + slope.T @ (weight[:, None] * slope), u + slope.T @ (weight * r)

    def step(_: Array, u: Array) -> Array:
        normal, gradient = normal_equations_at(u)
        return u - jnp.linalg.solve(normal, gradient)

    u = jax.lax.fori_loop(0, steps, step, jnp.zeros(len(root)))
    normal, _ = normal_equations_at(u)
    covariance = root @ jnp.linalg.solve(normal, root.T)
    return Belief(_geometry(u, prior, root), (covariance + covariance.T) / 2)
