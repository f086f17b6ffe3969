"""Total variation of volumes and slices, and its proximal step."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..physics.types import Scalar, Stack

TV_STEPS = 10  # iterations of the dual, which is kept between the iterations of the volume


def total_variation_of(volume: Stack) -> Float[Array, ""]:
    """Σ|∇V| from differences of neighbours [V] (isotropic; Rudin, Osher & Fatemi 1992)."""
    return jnp.sum(jnp.sqrt(jnp.sum(_gradient(volume) ** 2, 0)))


def tv_step(
    volume: Stack,
    weight: Scalar,
    dual: Float[Array, "3 z Y X"],
    support: Stack | float = 1.0,
    positive: bool = False,
    iterations: int = TV_STEPS,
) -> tuple[Stack, Float[Array, "3 z Y X"]]:
    """argmin ½‖U − V‖² + weight·Σ|∇U| over U in the support (and ≥ 0), and its dual.

    The dual is the start of the next call. Fast gradient projection of the dual (Beck & Teboulle,
    IEEE Trans. Image Process. 18, 2419 (2009)).
    """

    def least(values: Stack) -> Stack:
        return jnp.maximum(values, 0) if positive else values

    def primal(dual: Array) -> Stack:
        return support * least(volume - weight * _gradient_transposed(dual))

    def step(state: tuple[Array, ...], _: None) -> tuple[tuple[Array, ...], None]:
        dual, ahead, t = state
        new = ahead + _gradient(primal(ahead)) / (12 * weight)
        new = new / jnp.maximum(1, jnp.sqrt(jnp.sum(new**2, 0) + jnp.finfo(new.dtype).tiny))
        following = (1 + jnp.sqrt(1 + 4 * t**2)) / 2
        return (new, new + (t - 1) / following * (new - dual), following), None

    (dual, _, _), _ = jax.lax.scan(step, (dual, dual, jnp.ones((), volume.dtype)), None, iterations)
    return primal(dual), dual


def _gradient(volume: Stack) -> Float[Array, "3 z Y X"]:
    """Differences to the next voxel along z, y, x; zero at the far face."""
    return jnp.stack([jnp.diff(volume, axis=a, append=_last(volume, a)) for a in range(3)])


def _last(volume: Stack, axis: int) -> Array:
    return jax.lax.slice_in_dim(volume, volume.shape[axis] - 1, None, axis=axis)


def _gradient_transposed(dual: Float[Array, "3 z Y X"]) -> Stack:
    return jax.vjp(_gradient, jnp.zeros_like(dual[0]))[1](dual)[0]
