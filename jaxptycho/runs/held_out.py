"""Held-out shots: their positions and intensities are interpolated from those of their neighbours.

No pattern moves what is separate for a held-out shot. It would stay where the scan was thought to
be, and the held-out loss would measure that error instead of the model.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Array, Float, Int

from ..data import Dataset
from ..model import Model
from ..parts.indexed import PerShot

NEIGHBOURS = 8
GROUPS = 8  # of held-out shots, whose losses tell a gain from chance
CLEAR = 0.02  # relative fall of the loss, by which more unknowns pay …
SIGNIFICANT = 3.0  # … if it is as many standard errors


class NeighbourSums(NamedTuple):
    """Held-out shots of a view as sums of others."""

    held: Int[np.ndarray, " h"]
    near: Int[np.ndarray, "h k"]
    weights: Float[np.ndarray, "h k"]


def interpolation(
    data: Dataset, learn: Int[np.ndarray, " l"], held: Int[np.ndarray, " h"]
) -> NeighbourSums:
    """The interpolation from the nearest shots, exact for what is linear in the position."""
    places = data.positions[0]
    count = min(NEIGHBOURS, len(learn))
    nearest = scipy.spatial.KDTree(places[learn]).query(places[held], k=count)[1]
    near = learn[np.reshape(nearest, (len(held), count))]
    away = places[near] - places[held][:, None]
    size = max(float(np.abs(away).max()), 1e-30)
    equations = np.concatenate([np.ones((len(held), count, 1)), away / size], -1)
    return NeighbourSums(held, near, np.linalg.pinv(equations)[:, 0])


def interpolated(model: Model, how: NeighbourSums) -> Model:
    """The model with all that is separate for the held-out shots taken from their neighbours."""
    nodes = _separate(model)
    return eqx.tree_at(_separate, model, [_filled(n, how) for n in nodes]) if nodes else model


@eqx.filter_jit
def _filled(node: PerShot, how: NeighbourSums) -> PerShot:
    values = jnp.asarray(node.values)
    if not eqx.is_inexact_array(values):
        return node
    weights = jnp.asarray(how.weights, values.dtype)
    filled: Array = jnp.einsum("hk,hk...->h...", weights, values[how.near], precision="highest")
    return PerShot(values.at[how.held].set(filled))


def clearly_lower(losses: Float[np.ndarray, " g"], others: Float[np.ndarray, " g"]) -> bool:
    """True if `losses` of groups of shots are lower than `others`, and not by chance."""
    if not np.all(np.isfinite(losses)):
        return False
    fall = 1 - losses / others
    error = np.std(fall, ddof=1) / np.sqrt(len(fall))
    return bool(np.mean(fall) > max(CLEAR, SIGNIFICANT * error))


def _separate(model: Model) -> list[Any]:
    leaves = jax.tree.leaves(model, is_leaf=lambda node: isinstance(node, PerShot))
    return [leaf for leaf in leaves if isinstance(leaf, PerShot)]
