"""Plan of a refinement: what its loop is given."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import optax

from ..inverse.step import identity
from ..model import Model

Change = Callable[[Model, int], tuple[Model, bool]]


def unchanged(model: Model, epoch: int) -> tuple[Model, bool]:
    """The model as it is, with the state of its optimiser."""
    return model, False


class Refinement(NamedTuple):
    """Objective of a refinement, and its optimiser.

    `after_step(model)` projects the model after every step. `after_epoch(model, epoch)` returns
    the model that the next epoch begins with, and whether the state of the optimiser is reset.

    The updates of `parts` are multiplied by `rates`, by default 1. If `automatic`, a range test
    finds their common factor, they fall when the held-out loss no longer does, and then the step
    ends; `epochs` is the greatest number of them. If `tied`, all slices of the specimen move alike
    at first. A part in `late` rests before that epoch. A probe of one wave is given the first of
    `modes`, and then the next, as long as they lower the held-out loss of a trial. The result is
    the model of the least held-out loss where the step `compares` its models, otherwise the last.
    """

    loss: Callable[[Model, Any], jax.Array]
    optimiser: optax.GradientTransformation
    epochs: int
    batch: int = 64
    order: str = "random"
    penalty: Callable[[Model], jax.Array] | None = None
    after_step: Callable[[Model], Model] = identity
    after_epoch: Change = unchanged
    parts: tuple[str, ...] = ()
    rates: Mapping[str, float] = MappingProxyType({})
    automatic: bool = False
    tied: bool = False
    compares: bool = True
    late: Mapping[str, int] = MappingProxyType({})
    modes: tuple[int, ...] = ()
    name: str = "refine"
    remedy: str = "lower the rate of this part or constrain it"
