"""Accelerated Wirtinger flow (Xu et al., arXiv:1806.05546 (2018)): no rate to choose.

Every pixel moves by its gradient over its curvature (`curvature`), that is by 1/Lipschitz, and
goes on by Nesterov's momentum (Sov. Math. Dokl. 27, 372 (1983)): with direction d_k, velocity
v_k = μ_k v_{k−1} + d_k and μ_k = k/(k+3), the update is d_k + μ_k v_k. The momentum starts again
where the loss rises along it (O'Donoghue & Candès, Found. Comput. Math. 15, 715
(2015)).

A batch of all shots is the flow of the paper. In a batch of a few, a pixel has the curvature of
the shots that it has seen so far, their mean, or that of the batch if it is larger: the first
keeps steps of the batches alike, the second bounds each of them. The momentum of noise is bounded
by `momentum`.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from ...data import Batch
from ...physics.types import PyTree
from .curvature import (
    batch_illumination,
    mixed,
    require_supported,
    squared_object,
    step_of_probe,
    step_of_specimen,
)

HORIZON = 64  # batches whose curvature is remembered


class Flow(NamedTuple):
    """State of accelerated Wirtinger flow."""

    velocity: PyTree
    started: Array  # steps since the momentum started
    curvature: dict[str, Array]  # of each part, the mean over the shots of the last batches
    batches: Array  # seen so far


def awf(
    regularisation: float = 0.05, momentum: float = 0.9
) -> optax.GradientTransformationExtraArgs:
    """Accelerated Wirtinger flow for the loss `misfit(amplitude)`, of specimen, probe or both.

    `regularisation` in (0, 1] is the least curvature of a pixel over the largest, `momentum` the
    largest μ.
    """
    if not (0 < regularisation <= 1 and 0 <= momentum < 1):
        raise ValueError(
            f"got a regularisation of {regularisation} and a momentum of {momentum}; give numbers "
            "in (0, 1] and [0, 1)"
        )

    def init(params: PyTree) -> Flow:
        require_supported(params)
        zero = jnp.zeros((), jnp.float32)
        blank = {part: jnp.zeros(shape, dtype) for part, shape, dtype in _planes(params)}
        return Flow(jax.tree.map(jnp.zeros_like, params), zero, blank, zero)

    def update(
        grads: PyTree,
        state: Flow,
        params: PyTree | None = None,
        *,
        model: Any,
        batch: Batch,
        units: PyTree | None = None,
        **_: Any,
    ) -> Any:
        del params
        seen = {part: CURVATURE[part](model, batch) for part in state.curvature}
        seen = {part: power / jnp.maximum(jnp.sum(batch.weight), 1) for part, power in seen.items()}
        known = jnp.minimum(state.batches, HORIZON)
        mean = {p: (known * state.curvature[p] + seen[p]) / (known + 1) for p in seen}
        mean = {part: power.astype(seen[part].dtype) for part, power in mean.items()}
        steps = {p: 0.5 / mixed(jnp.maximum(mean[p], seen[p]), regularisation) for p in seen}
        direction = jax.tree.map(jnp.zeros_like, grads)
        if "specimen" in steps:
            step = steps["specimen"] / len(steps["specimen"])
            direction = step_of_specimen(direction, grads, model, step)
        if "probe" in steps:
            direction = step_of_probe(direction, grads, units, steps["probe"])
        started = jnp.where(_along(grads, state.velocity) > 0, 0.0, state.started)
        mu = jnp.minimum(started / (started + 3), momentum)
        velocity = jax.tree.map(lambda v, d: d + _like(mu, d) * v, state.velocity, direction)
        updates = jax.tree.map(lambda v, d: d + _like(mu, d) * v, velocity, direction)
        return updates, Flow(velocity, started + 1, mean, state.batches + 1)

    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore


CURVATURE = {"specimen": batch_illumination, "probe": squared_object}


def _planes(params: PyTree) -> Iterator[tuple[str, tuple[int, ...], Any]]:
    """Shape and dtype of the curvature of every part that moves."""
    for part, axes in (("specimen", 3), ("probe", 2)):
        leaves = jax.tree.leaves(getattr(params, part))
        if leaves:
            yield part, leaves[0].shape[-axes:], leaves[0].real.dtype


def _along(gradient: PyTree, velocity: PyTree) -> Array:
    """Slope Re Σ g*·v of the loss along the velocity."""
    slopes = jax.tree.map(lambda g, v: jnp.sum((jnp.conj(g) * v).real), gradient, velocity)
    return sum(jax.tree.leaves(slopes))  # pyright: ignore


def _like(number: Array, values: Array) -> Array:
    return number.astype(values.real.dtype)
