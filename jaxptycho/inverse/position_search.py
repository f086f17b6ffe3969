"""Search for shots whose recorded positions are wrong by more than a gradient can correct.

The gradient with respect to a position sees no further than the finest structure of the probe.
While the positions of most shots converge, those beyond remain in wrong minima and fit worse. They
are left out for some epochs, so that the specimen forgets what it made of them, and are then
placed where the specimen of the others predicts their patterns best (instead of the random trials
of Maiden et al., Ultramicroscopy 120, 64 (2012), which the specimen follows).
"""

import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..data import Batch, Dataset, make_batch
from ..model import Model, predict, probe_positions
from ..parts.indexed import PerShot
from .losses import amplitude

Positions = Float[np.ndarray, "shot 2"]  # (y, x) [Å]
SUSPECTS = 0.15  # fraction of the shots that a round searches for
ROUNDS = 6


def locate_shots(
    model: Model,
    data: Dataset,
    refine: Callable[[Model, Int[np.ndarray, " n"]], Model],
    reach: float,
    rounds: int = ROUNDS,
    suspects: float = SUSPECTS,
) -> Model:
    """The model after rounds of search for the shots of one scan that fit worst.

    `refine(model, shots)` is the model after some epochs of specimen, probe and positions on these
    shots; it is called without the suspects, a fraction of all, and after the search with all. No
    shot is placed farther than `reach` [Å] from where it was recorded (`data.positions`).
    """
    if data.n_views > 1:
        raise ValueError(
            f"the measurement has {data.n_views} views; a search for positions requires one scan"
        )
    every = np.arange(data.n_shots[0])
    for _ in range(rounds):
        suspicious = worst_shots(model, data, suspects)
        model = refine(model, np.setdiff1d(every, suspicious))
        model = refine(search_positions(model, data, suspicious, reach), every)
    return model


def worst_shots(model: Model, data: Dataset, fraction: float) -> Int[np.ndarray, " n"]:
    """Numbers of the fraction of all shots that have the largest misfits."""
    every = np.arange(data.n_shots[0])
    misfits = _misfits(model, make_batch(data, 0, every), jnp.zeros((1, 2)))[0]
    return np.sort(np.argsort(np.asarray(misfits))[::-1][: math.ceil(fraction * len(every))])


def search_positions(
    model: Model, data: Dataset, shots: Int[np.ndarray, " n"], reach: float
) -> Model:
    """The model with `shots` placed where their patterns fit best, on a grid of one pixel.

    Places are within `reach` [Å] of the recorded positions and of the present ones.
    """
    away = probe_positions(model)[shots] - data.positions[0][shots]
    offsets = _disc(reach, min(model.grid.pixel))
    misfits = np.array(_misfits(model, make_batch(data, 0, shots), jnp.asarray(offsets, float)))
    allowed = reach >= np.hypot(*(offsets[:, None] + away).T).T
    allowed[(offsets == 0).all(1)] = True  # a shot may remain where it is
    best = np.where(allowed, misfits, np.inf).argmin(0)
    by = np.zeros((data.n_shots[0], 2))
    by[shots] = offsets[best]
    scan = model.scan.move(PerShot(jnp.asarray(by, float)))
    return eqx.tree_at(lambda m: m.scan, model, scan)


@eqx.filter_jit
def _misfits(model: Model, batch: Batch, offsets: Float[Array, "k 2"]) -> Float[Array, "k n"]:
    """Misfit of every pattern of a batch with its shot moved by every offset [Å]."""

    def at(offset: Float[Array, "2"]) -> Float[Array, " n"]:
        moved = eqx.tree_at(lambda m: m.scan, model, model.scan.move(offset))
        predicted = predict(moved, batch)
        return jnp.sum(amplitude(predicted, jnp.asarray(batch.counts, float)), (1, 2))

    return jax.lax.map(at, offsets)


def _disc(radius: float, step: float) -> Float[np.ndarray, "k 2"]:
    """Points of a square grid within a radius."""
    n = int(radius / step)
    grid = step * np.moveaxis(np.mgrid[-n : n + 1, -n : n + 1], 0, -1).reshape(-1, 2)
    return grid[np.hypot(*grid.T) <= radius]
