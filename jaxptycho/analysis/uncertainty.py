"""How well counts can determine a model: the Cramér–Rao bound.

No unbiased estimate of θ has a covariance below I⁻¹, I being the Fisher information (Kay,
*Estimation Theory*, ch. 3). `bound` inverts it on small models, `sampled_bound` and
`deviation_of` work on large ones, where the matrix is never formed.

What patterns do not show (a constant phase, a ramp, a common shift of probe and specimen) is
the null space of I: bounds are those of the parameters without their component in it, in
natural units, the pseudo-inverse I⁺. A prior leaves no null space.
"""

import warnings
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ..model import Model
from .information import AT_ONCE, Fisher, matrix

LEFT = 1e-2  # of the noise may stay unsolved without a warning


class Bound(NamedTuple):
    """The Cramér–Rao bound of a small model."""

    deviation: Model  # least standard deviation of every parameter, in its unit; ∞ where nothing is known of it
    covariance: Float[np.ndarray, "n n"]  # I⁺ in natural units
    eigenvalues: Float[np.ndarray, "n"]  # of I, the smallest first
    gauges: Float[np.ndarray, "k n"]  # orthonormal basis of the null space, natural units


class SampledBound(NamedTuple):
    """The Cramér–Rao bound from simulated noise."""

    deviation: Model  # as that of `Bound`
    error: float  # relative standard error of the deviations
    residual: float  # largest ‖I x − b‖/‖b‖ that the solver left


def bound(information: Fisher, cut: float | None = None) -> Bound:
    """The Cramér–Rao bound of every parameter, all chosen ones being unknown; for small models.

    Eigenvalues of I below `cut` times the largest are the null space (by default what rounding
    leaves of zero). A parameter that lies wholly in it is not determined and deviates by ∞.
    """
    values, vectors = np.linalg.eigh(matrix(information))
    cut = len(values) * float(jnp.finfo(information.units.dtype).eps) if cut is None else cut
    null = values <= cut * values[-1]
    gauges, rest = vectors[:, null].T, vectors[:, ~null]
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
    """The Cramér–Rao bound of every parameter as the spread of x = I⁺b, where b is the slope of the
    log-likelihood under simulated noise: Cov x = I⁺ I I⁺ = I⁺.

    By conjugate gradients, at most `steps`, which never leave the range of I. Directions that
    they do not reach by then count as null space, so that deviations come out too small: a UserWarning
    where the residual stays above 1 %.
    """
    keys = jax.random.split(jax.random.key(seed), samples)
    variance, seen, residual = _spread(information, keys, tolerance, steps)
    deviation = jnp.where(
        seen > jnp.finfo(seen.dtype).eps * jnp.max(seen), jnp.sqrt(variance), jnp.inf
    )
    if not residual <= LEFT:
        warnings.warn(
            f"after {steps} steps a part of {float(residual):.2g} of the noise is unsolved, and the deviations are "
            "too small; allow more steps, or give a prior",
            stacklevel=2,
        )
    return SampledBound(
        information.tree(deviation * information.units), (2 * samples) ** -0.5, float(residual)
    )


def deviation_of(
    function, information: Fisher, tolerance: float = 1e-4, steps: int = 1000
) -> float:
    """The least standard deviation of anything that `function(model) -> scalar` computes, in its unit.

    √(cᵀI⁺c) with c its gradient, by conjugate gradients. Raises ValueError for what the
    patterns do not determine.
    """
    variance, residual = _variance_of(function, information, tolerance, steps)
    if not residual <= max(10 * tolerance, 1e-3):
        raise ValueError(
            f"after {steps} steps a part of {float(residual):.2g} of the gradient is outside what the patterns tell; "
            "ask for a quantity that no gauge changes, give a prior, or allow more steps"
        )
    return float(jnp.sqrt(variance))


@eqx.filter_jit
def _spread(information, keys, tolerance, steps):
    def sample(key):
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
    """I⁺·slope, and the relative residual. Beyond rounding errors, steps would leave the range of I."""
    tolerance = max(tolerance, 10 * float(jnp.finfo(slope.dtype).eps))
    found, _ = jax.scipy.sparse.linalg.cg(information.product, slope, tol=tolerance, maxiter=steps)
    left = jnp.linalg.norm(information.product(found) - slope)
    return found, left / jnp.maximum(jnp.linalg.norm(slope), 1e-30)
