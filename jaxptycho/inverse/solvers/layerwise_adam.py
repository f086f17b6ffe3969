"""Adam that knows one size of gradient for a whole array, for volumes and wide objects."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax


def layerwise_adam(
    rate: float | Callable, b1: float = 0.9, b2: float = 0.999
) -> optax.GradientTransformation:
    """Adam (Kingma & Ba 2015) whose second moment is the mean of |gradient|² over all of an array.

    Adam itself moves every voxel at about the same rate, those that hardly any pattern shows like those that
    all show; so a volume fills with what no view denies before its atoms have grown. With one moment for all,
    steps keep the shape of the gradient, as in gradient descent, and their size needs no search, as in Adam.
    Layers of nets with one moment each: Ginsburg et al., arXiv:1905.11286 (2019).
    """

    def init(params):
        first = jax.tree.map(jnp.zeros_like, params)
        second = jax.tree.map(lambda p: jnp.zeros((), p.real.dtype), params)
        return optax.ScaleByAdamState(jnp.zeros((), jnp.int32), first, second)

    def update(updates, state, params=None):
        del params
        count = optax.safe_increment(state.count)
        first = optax.tree.update_moment(updates, state.mu, b1, 1)
        second = jax.tree.map(
            lambda g, v: b2 * v + (1 - b2) * jnp.mean(jnp.abs(g) ** 2), updates, state.nu
        )
        corrected = (
            optax.tree.bias_correction(m, b, count) for m, b in ((first, b1), (second, b2))
        )
        steps = jax.tree.map(
            lambda m, v: m / (jnp.sqrt(v) + jnp.finfo(v.dtype).tiny ** 0.5), *corrected
        )
        return steps, optax.ScaleByAdamState(count, first, second)

    return optax.chain(
        optax.GradientTransformation(init, update), optax.scale_by_learning_rate(rate)
    )
