"""Rates and batches that need no choice: parts that move, their proportions, shots of a step."""

import math

import jax
import optax

from ..model import Model
from .step import PerPart, named, per_part, trainable

# rates of the parts in natural units, relative to that of the specimen
PROPORTIONS = {"specimen": 1.0, "probe": 1.0, "scan": 2.0, "propagator": 0.2, "detector": 0.2}
LATE = {"scan": 2}  # first epoch of a part that has no meaning without a specimen
STEPS = 32  # of an epoch
FEWEST = 8  # shots of a step
MOST = 128


def proportions(model: Model) -> dict[str, float]:
    """Rates of all parts of `model` that have free parameters, relative to the specimen's."""
    free = set(jax.tree.leaves(named(trainable(model), tuple(PROPORTIONS))))
    return {part: rate for part, rate in PROPORTIONS.items() if part in free}


def late(parts: tuple[str, ...]) -> dict[str, int]:
    """First epoch of those of `parts` that rest in the first ones."""
    return {part: LATE[part] for part in parts if part in LATE}


def automatic_adam(model: Model) -> PerPart:
    """Adam on all free parts, whose rates are `proportions`, to be multiplied by a common one."""
    return per_part({part: optax.adam(rate) for part, rate in proportions(model).items()})


def batch_size(shots: int) -> int:
    """Shots of a step on a measurement of `shots`: the power of two that makes about 32 steps."""
    return min(max(FEWEST, 2 ** round(math.log2(max(1, shots) / STEPS))), MOST)
