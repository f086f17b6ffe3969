"""Nesterov's momentum for any solver, started again where it would lead uphill.

With the update d_k of a solver, velocity v_k = μ_k v_{k−1} + d_k and μ_k = k/(k+3), the update is
d_k + μ_k v_k (Nesterov, Sov. Math. Dokl. 27, 372 (1983)). k begins again at 0 wherever the loss
rises along the velocity (O'Donoghue & Candès, Found. Comput. Math. 15, 715 (2015)), so no number
depends on the condition of the problem. In batches, `momentum` bounds that of their noise.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from ...physics.types import PyTree


class Accelerated(NamedTuple):
    """State of an accelerated solver."""

    velocity: PyTree
    started: Array  # steps since the momentum started
    inner: Any


def accelerated(
    inner: optax.GradientTransformation, momentum: float = 0.9
) -> optax.GradientTransformationExtraArgs:
    """`inner` with Nesterov's momentum, whose μ is at most `momentum` in [0, 1)."""
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum is {momentum}; give a number in [0, 1), 0 for none")
    inner = optax.with_extra_args_support(inner)

    def init(params: PyTree) -> Accelerated:
        still = jax.tree.map(jnp.zeros_like, params)
        return Accelerated(still, jnp.zeros((), jnp.float32), inner.init(params))

    def update(
        grads: PyTree, state: Accelerated, params: PyTree | None = None, **extra: Any
    ) -> Any:
        direction, inner_state = inner.update(grads, state.inner, params, **extra)
        started = jnp.where(directional_slope(grads, state.velocity) > 0, 0.0, state.started)
        mu = jnp.minimum(started / (started + 3), momentum)

        def onward(velocity: PyTree) -> PyTree:
            return jax.tree.map(lambda d, v: d + mu.astype(d.real.dtype) * v, direction, velocity)

        velocity = onward(state.velocity)
        return onward(velocity), Accelerated(velocity, started + 1, inner_state)

    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore


def directional_slope(gradient: PyTree, direction: PyTree) -> Array:
    """Slope Re Σ g*·d of the loss along a direction; `gradient` is that of ascent."""
    each = jax.tree.map(lambda g, d: jnp.sum((jnp.conj(g) * d).real), gradient, direction)
    return sum(jax.tree.leaves(each), jnp.zeros(()))
