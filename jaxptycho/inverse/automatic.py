"""What a refinement chooses without being told: parts that move, the proportions of their rates,
shots of a step, slices tied at first, matter that does not amplify.
"""

import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from ..model import Model
from ..parts.indexed import first_shot
from ..parts.slices import mean_slice
from .constraints.specimen import amplitude_clamp
from .step import PerPart, identity, named, per_part, trainable

# rates of the parts in natural units, relative to that of the specimen
PROPORTIONS = {"specimen": 1.0, "probe": 1.0, "scan": 2.0, "propagator": 1.0, "detector": 0.2}
LATE = {"scan": 2}  # first epoch of a part that has no meaning without a specimen
STEPS = 32  # of an epoch
FEWEST = 8  # shots of a step
MOST = 128
MODES = (3, 6)  # complete orders of a probe, tried in turn where it has one


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


def begins_tied(model: Model) -> bool:
    """True if a specimen of identical slices is thicker than the depth of field λ/α².

    A descent from scratch in thousands of free slices ends in a poor minimum: what one slice
    lacks others take over. Tied slices have as few parameters as one.
    """
    one = first_shot(model)
    specimen = one.specimen
    if not specimen.held or specimen.rotates:
        return False
    thickness = np.asarray(specimen.thicknesses(one.grid), float)
    if len(thickness) < 2 or np.ptp(thickness) > 0:
        return False
    alike = eqx.tree_equal(specimen, mean_slice(specimen), rtol=1e-5, atol=1e-5)
    return bool(alike) and float(thickness.sum()) > depth_of_field(one)


def modes_to_try(model: Model) -> tuple[int, ...]:
    """Numbers of probe modes that are worth a trial, in turn.

    None in a thick specimen, whose multiple scattering modes would take over at first.
    """
    tries = model.probe.one_wave and not model.specimen.rotates and not begins_tied(model)
    return MODES if tries else ()


def depth_of_field(model: Model) -> float:
    """Depth of field λ/α² [Å], infinite for a parallel beam.

    α is that of the even disc with the mean square angle of the probe.
    """
    power = jnp.sum(jnp.abs(model.probe.spectrum(model.grid)) ** 2, 0)
    square = 2 * float(jnp.sum(power * model.grid.k2()) / jnp.sum(power))
    return math.inf if square == 0 else 1 / (model.grid.wavelength * square)


def keep_passive(model: Model) -> Callable[[Model], Model]:
    """The projection on |t| ≤ 1 of a specimen that can absorb, otherwise the identity."""
    specimen = model.specimen
    return amplitude_clamp() if specimen.absorbs and not specimen.rotates else identity
