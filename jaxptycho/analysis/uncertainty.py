"""Uncertainty of a model from counts: the Cramér–Rao bound.

No unbiased estimate of θ has a covariance below I⁻¹, I being the Fisher information (Kay,
*Estimation Theory*, ch. 3). `bound` inverts it on small models, `sampled_bound` and
`deviation_of` work on large ones, where the matrix is never formed.

Ambiguities (a constant phase, a ramp, a common shift of probe and specimen) are the null space
of I: bounds refer to the parameters without their component in it, in natural units, by the
pseudo-inverse I⁺. With a prior there is no null space.
"""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ..model import Model
from .information import AT_ONCE, Fisher, matrix

MAX_RESIDUAL = 1e-2  # largest unsolved fraction of the noise without a warning


class Bound(NamedTuple):
    """The Cramér–Rao bound of a small model."""

    deviation: Model  # smallest standard deviation of every parameter, in its unit; or ∞
    covariance: Float[np.ndarray, "n n"]  # I⁺ in natural units
    eigenvalues: Float[np.ndarray, " n"]  # of I, the smallest first
    gauges: Float[np.ndarray, "k n"]  # orthonormal basis of the null space, natural units


class SampledBound(NamedTuple):
    """The Cramér–Rao bound from simulated noise."""

    deviation: Model  # as that of `Bound`
    error: float  # relative standard error of the deviations
    residual: float  # largest ‖I x − b‖/‖b‖ that the solver left


def bound(information: Fisher, cut: float | None = None) -> Bound:
    """Cramér–Rao bound of every parameter, with all chosen ones unknown; for small models.

    Eigenvalues of I below `cut` times the largest are the null space (by default up to rounding
    errors). A parameter entirely in it is not determined and has the deviation ∞.
    """
    values, vectors = np.linalg.eigh(matrix(information))
    cut = len(values) * float(jnp.finfo(information.units.dtype).eps) if cut is None else cut
    null = values <= cut * values[-1]
    gauges = vectors[:, null].T
    rest = vectors[:, ~null]
    covariance = (rest / values[~null]) @ rest.T
    deviation = np.where(np.sum(gauges**2, 0) > 0.99, np.inf, np.sqrt(np.diagonal(covariance)))
    return Bound(
        information.tree(deviation * np.asarray(information.units)), covariance, values, gauges
    )


def sampled_bound(
    information: Fisher,
    samples: int = 64,
    seed: int = 0,
    tolerance: float = 1e-4,
    steps: int = 1000,
) -> SampledBound:
    """Cramér–Rao bound of every parameter as the spread of x = I⁺b under simulated noise.

    b is the score, the gradient of the log-likelihood, hence Cov x = I⁺ I I⁺ = I⁺. At most
    `steps` conjugate gradients are used, which do not leave the range of I. Directions not
    reached count as null space, so that deviations are too small: a UserWarning if the residual
    exceeds 1 %.
    """
    keys = jax.random.split(jax.random.key(seed), samples)
    variance, seen, residual = _spread(information, keys, tolerance, steps)
    deviation = jnp.where(
        seen > jnp.finfo(seen.dtype).eps * jnp.max(seen), jnp.sqrt(variance), jnp.inf
    )
    if not residual <= MAX_RESIDUAL:
        warnings.warn(
            f"after {steps} steps a part of {float(residual):.2g} of the noise is unsolved, and "
            "the deviations are too small; allow more steps, or give a prior",
            stacklevel=2,
        )
    return SampledBound(
        information.tree(deviation * information.units), (2 * samples) ** -0.5, float(residual)
    )


def deviation_of(
    function: Callable, information: Fisher, tolerance: float = 1e-4, steps: int = 1000
) -> float:
    """Smallest standard deviation of the quantity `function(model) -> scalar`, in its unit.

    √(cᵀI⁺c) with c its gradient, by conjugate gradients. Raises ValueError for a quantity that
    patterns do not determine.
    """
    variance, residual = _variance_of(function, information, tolerance, steps)
    if not residual <= max(10 * tolerance, 1e-3):
        raise ValueError(
            f"after {steps} steps a part of {float(residual):.2g} of the gradient is not "
            "determined by the patterns; use a quantity that no gauge changes, give a prior, or "
            "allow more steps"
        )
    return float(jnp.sqrt(variance))


@eqx.filter_jit
def _spread(information, keys, tolerance, steps):
    def sample(key: Any) -> Any:
        slope = information.score(key)
        found, residual = _solved(information, slope, tolerance, steps)
        return found**2, slope**2, residual

    variances, seen, residuals = jax.lax.map(sample, keys, batch_size=AT_ONCE)
    return jnp.mean(variances, 0), jnp.mean(seen, 0), jnp.max(residuals)


@eqx.filter_jit
def _variance_of(function, information, tolerance, steps):
    slope = jax.grad(lambda vector: function(information.moved(vector)))(
        jnp.zeros_like(information.units)
    )
    found, residual = _solved(information, slope, tolerance, steps)
    return slope @ found, residual


def _solved(information, slope, tolerance, steps):
    """Product I⁺·slope and its relative residual, by steps that stay in the range of I."""
    tolerance = max(tolerance, 10 * float(jnp.finfo(slope.dtype).eps))
    found, _ = jax.scipy.sparse.linalg.cg(information.product, slope, tol=tolerance, maxiter=steps)
    left = jnp.linalg.norm(information.product(found) - slope)
    return found, left / jnp.maximum(jnp.linalg.norm(slope), 1e-30)
