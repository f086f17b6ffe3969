"""Engines of ptychography as optax transformations: they see the model and the batch of a step."""

from collections.abc import Callable
from typing import Any

import optax

from ...data import Batch
from ...physics.types import PyTree
from .curvature import require_supported

Update = Callable[[PyTree, Any, Any, Batch, PyTree | None], tuple[PyTree, Any]]


def without_state(params: PyTree) -> optax.EmptyState:
    """No state, of an engine that moves free pixels of specimen and probe (`require_supported`)."""
    require_supported(params)
    return optax.EmptyState()


def engine(
    update: Update, init: Callable[[PyTree], Any] = without_state
) -> optax.GradientTransformationExtraArgs:
    """Transformation by `update(grads, state, model, batch, units) -> updates, state`.

    `units` are those that the parameters of the optimiser have in the model, None for natural ones.
    """

    def updated(
        grads: PyTree,
        state: Any,
        params: PyTree | None = None,
        *,
        model: Any,
        batch: Batch,
        units: PyTree | None = None,
        **_: Any,
    ) -> Any:
        del params
        return update(grads, state, model, batch, units)

    return optax.GradientTransformationExtraArgs(init, updated)  # pyright: ignore
