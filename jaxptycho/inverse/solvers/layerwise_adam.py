"""Adam with one second moment per array, for volumes and wide objects."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from ...physics.types import PyTree


def layerwise_adam(
    rate: optax.ScalarOrSchedule, b1: float = 0.9, b2: float = 0.999
) -> optax.GradientTransformation:
    """Adam (Kingma & Ba 2015) whose second moment is the mean of |gradient|² over an array.

    Adam moves every voxel at about the same rate, regardless of the number of patterns that
    depend on it; a volume is then filled with density that no view contradicts before its atoms
    have formed. With one moment for all voxels, steps keep the shape of the gradient, as in
    gradient descent, and their size requires no search, as in Adam. One moment per layer of a
    network: NovoGrad, Ginsburg et al., arXiv:1905.11286 (2019).
    """

    def init(params: PyTree) -> Any:
        first = jax.tree.map(jnp.zeros_like, params)
        second = jax.tree.map(lambda p: jnp.zeros((), p.real.dtype), params)
        return optax.ScaleByAdamState(jnp.zeros((), jnp.int32), first, second)

    def update(updates: PyTree, state: Any, params: PyTree | None = None) -> Any:
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
