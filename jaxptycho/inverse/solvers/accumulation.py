"""Gradients of several batches gathered for one step: all views together, instead of one carried to the next."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ...parts.indexed import PerShot, PerView


class Gathered(NamedTuple):
    """What has come since the last step."""

    inner: Any  # state of the optimiser
    total: Any  # Σ w g
    weight: jax.Array  # Σ w
    batches: jax.Array


def accumulate_gradients(
    inner: optax.GradientTransformation,
    batches: int,
    own: optax.GradientTransformation | None = None,
) -> optax.GradientTransformation:
    """`inner` once in so many batches, on the gradient Σ w g / Σ w of all their shots, w those of a batch.

    Where each view is one batch, as many batches as views are one step on all of them. What differs from view to
    view or from shot to shot is moved by `own` (by default `inner`) with each batch that shows it.
    """
    if batches == 1:
        return inner
    varying = (PerShot, PerView)

    def labels(params):
        def of(node):
            return jax.tree.map(lambda _: "own" if isinstance(node, varying) else "shared", node)

        return jax.tree.map(of, params, is_leaf=lambda node: isinstance(node, varying))

    return optax.partition(
        {"shared": _once_in(batches, inner), "own": inner if own is None else own}, labels
    )


def _once_in(
    batches: int, inner: optax.GradientTransformation
) -> optax.GradientTransformationExtraArgs:
    inner = optax.with_extra_args_support(inner)

    def empty(params, state):
        nothing = jax.tree.map(jnp.zeros_like, params)
        return Gathered(state, nothing, jnp.zeros((), jnp.float32), jnp.zeros((), jnp.int32))

    def update(grads, state, params=None, *, batch, **extra):
        own = jnp.sum(batch.weight)
        total = jax.tree.map(lambda t, g: t + own.astype(g.real.dtype) * g, state.total, grads)
        weight = state.weight + own.astype(jnp.float32)

        def step():
            mean = jax.tree.map(lambda t: t / weight.astype(t.real.dtype), total)
            updates, after = inner.update(
                mean, state.inner, params, batch=batch, **(extra | {"grad": mean})
            )  # type: ignore
            return updates, empty(grads, after)

        def wait():
            return jax.tree.map(jnp.zeros_like, grads), Gathered(
                state.inner, total, weight, state.batches + 1
            )

        return jax.lax.cond(state.batches + 1 == batches, step, wait)

    def init(params):
        return empty(params, inner.init(params))

    return optax.GradientTransformationExtraArgs(init, update)  # type: ignore
