"""Accelerated Wirtinger flow (Xu et al., arXiv:1806.05546 (2018)): no rate to choose.

Every pixel moves by its gradient over its curvature (`curvature`), that is by 1/Lipschitz, with
Nesterov's momentum (`acceleration`). A batch of all shots is the flow of the paper. In a batch of
a few, a pixel has the mean curvature of the shots of the last batches, or that of its batch if it
is larger: the first keeps steps of the batches alike, the second bounds each of them.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from ...data import Batch
from ...physics.types import PyTree
from .acceleration import accelerated
from .curvature import (
    batch_illumination,
    mixed,
    require_regularisation,
    require_supported,
    squared_object,
    step_of_probe,
    step_of_specimen,
)
from .engine import engine

HORIZON = 64  # batches whose curvature is remembered
CURVATURE = {"specimen": batch_illumination, "probe": squared_object}


class Flow(NamedTuple):
    """State of Wirtinger flow."""

    curvature: dict[str, Array]  # of each part, the mean over the shots of the last batches
    batches: Array  # seen so far


def awf(
    regularisation: float = 0.05, momentum: float = 0.9
) -> optax.GradientTransformationExtraArgs:
    """Accelerated Wirtinger flow for the loss `misfit(amplitude)`, of specimen, probe or both.

    `regularisation` in (0, 1] is the least curvature of a pixel over the largest, `momentum` the
    largest μ.
    """
    require_regularisation(regularisation)
    return accelerated(_flow(regularisation), momentum)


def _flow(regularisation: float) -> optax.GradientTransformationExtraArgs:
    def init(params: PyTree) -> Flow:
        require_supported(params)
        blank = {part: jnp.zeros(shape, dtype) for part, shape, dtype in _planes(params)}
        return Flow(blank, jnp.zeros((), jnp.float32))

    def update(grads: PyTree, state: Flow, model: Any, batch: Batch, units: PyTree | None) -> Any:
        known = jnp.minimum(state.batches, HORIZON)
        mean = {}
        steps = {}
        for part, old in state.curvature.items():
            seen = CURVATURE[part](model, batch) / jnp.maximum(jnp.sum(batch.weight), 1)
            mean[part] = ((known * old + seen) / (known + 1)).astype(old.dtype)
            steps[part] = 0.5 / mixed(jnp.maximum(mean[part], seen), regularisation)
        updates = jax.tree.map(jnp.zeros_like, grads)
        if "specimen" in steps:
            step = steps["specimen"] / len(steps["specimen"])
            updates = step_of_specimen(updates, grads, model, step)
        if "probe" in steps:
            updates = step_of_probe(updates, grads, units, steps["probe"])
        return updates, Flow(mean, state.batches + 1)

    return engine(update, init)


def _planes(params: PyTree) -> Iterator[tuple[str, tuple[int, ...], Any]]:
    """Shape and dtype of the curvature of every part that moves."""
    for part, axes in (("specimen", 3), ("probe", 2)):
        leaves = jax.tree.leaves(getattr(params, part))
        if leaves:
            yield part, leaves[0].shape[-axes:], leaves[0].real.dtype
