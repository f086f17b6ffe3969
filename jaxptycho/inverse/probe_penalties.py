"""Penalties of the probe, terms added to the loss; `penalties` registers them.

`weight` [quanta per shot] is the penalty of a probe whose neighbouring pixels differ by as much as
they hold. Neither its dose nor its number of modes matters.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..model import Model
from ..parts.indexed import plain
from ..parts.probe import Basis, Moments, mean_intensity


def probe_smoothness(weight: float) -> Callable[[Model], jax.Array]:
    """Penalty Σ|∇ψ|²/Σ|ψ|² of the probe in real space: no finer detail than patterns ask for.

    ∇ are differences of neighbours, periodic; by Parseval it is the mean of 4 sin²(πn/N) over the
    intensity of the spectrum at frequencies n of N.
    """
    return _mean_of(weight, lambda basis: jnp.fft.fft2(basis, norm="ortho"))


def probe_spectrum_smoothness(weight: float) -> Callable[[Model], jax.Array]:
    """Penalty Σ|∇Fψ|²/Σ|ψ|² of the probe in reciprocal space: a compact probe.

    It is the mean of 4 sin²(πn/N) over the intensity at n of N pixels from the centre.
    """
    return _mean_of(weight, lambda basis: jnp.fft.ifftshift(basis, axes=(-2, -1)))


def _mean_of(weight: float, transform: Callable[[Basis], Basis]) -> Callable[[Model], jax.Array]:
    """Penalty Σ_n 4 sin²(πn/N)·|transform ψ|² over Σ|ψ|², the origin in the corner."""

    def share(basis: Basis, moments: Moments) -> Float[Array, ""]:
        seen = mean_intensity(transform(basis), moments)
        rows, columns = (4 * jnp.sin(math.pi * jnp.arange(n) / n) ** 2 for n in seen.shape)
        roughness = rows.astype(seen.dtype)[:, None] + columns.astype(seen.dtype)
        return jnp.sum(roughness * seen) / jnp.maximum(jnp.sum(seen), 1e-30)

    return lambda model: weight * jnp.mean(plain(model.probe.reduce_waves(share)))
