"""Accumulation of the gradients of several batches, such as all views, for one step."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ...data.batch import Batch
from ...parts.indexed import PerShot, PerView
from ...physics.types import PyTree


class Gathered(NamedTuple):
    """Gradients accumulated since the last step."""

    inner: Any  # state of the optimiser
    total: Any  # Σ w g
    weight: jax.Array  # Σ w
    batches: jax.Array


def accumulate_gradients(
    inner: optax.GradientTransformation,
    batches: int,
    own: optax.GradientTransformation | None = None,
) -> optax.GradientTransformation:
    """Step of `inner` once per `batches` batches, on the mean gradient of their shots.

    The mean is Σ w g / Σ w with w the weight of a batch. If each view is one batch, as many
    batches as views make one step on all views. Parameters that differ from view to view or from
    shot to shot are updated by `own` (by default `inner`) with each batch that contains them.
    """
    if batches == 1:
        return inner
    varying = (PerShot, PerView)

    def labels(params: PyTree) -> PyTree:
        def of(node: Any) -> Any:
            return jax.tree.map(lambda _: "own" if isinstance(node, varying) else "shared", node)

        return jax.tree.map(of, params, is_leaf=lambda node: isinstance(node, varying))

    return optax.partition(
        {"shared": _once_in(batches, inner), "own": inner if own is None else own}, labels
    )


def _once_in(
    batches: int, inner: optax.GradientTransformation
) -> optax.GradientTransformationExtraArgs:
    inner = optax.with_extra_args_support(inner)

    def empty(params: PyTree, state: Any) -> Gathered:
        nothing = jax.tree.map(jnp.zeros_like, params)
        return Gathered(state, nothing, jnp.zeros((), jnp.float32), jnp.zeros((), jnp.int32))

    def update(
        grads: PyTree, state: Any, params: PyTree | None = None, *, batch: Batch, **extra: Any
    ) -> Any:
        own = jnp.sum(batch.weight)
        total = jax.tree.map(lambda t, g: t + own.astype(g.real.dtype) * g, state.total, grads)
        weight = state.weight + own.astype(jnp.float32)

        def step() -> Any:
            mean = jax.tree.map(lambda t: t / weight.astype(t.real.dtype), total)
            updates, after = inner.update(
                mean, state.inner, params, batch=batch, **(extra | {"grad": mean})
            )  # type: ignore
            return updates, empty(grads, after)

        def wait() -> Any:
            return jax.tree.map(jnp.zeros_like, grads), Gathered(
                state.inner, total, weight, state.batches + 1
            )

        return jax.lax.cond(state.batches + 1 == batches, step, wait)

    def init(params: PyTree) -> Gathered:
        return empty(params, inner.init(params))

    return optax.GradientTransformationExtraArgs(init, update)  # type: ignore
