"""Momentum of a ptychographic engine (mPIE, Maiden, Johnson & Li, Optica 4, 736 (2017)).

Every T updates the parameters x go on along the way that they have come since the last time: with
x′ the parameters then, velocity v ← η·v + (x − x′) and x ← x + η·v. Between these moments the
engine is unchanged, so the noise of its single updates has been averaged before it is followed.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from ...physics.types import PyTree
from .pie import rpie


class Momentum(NamedTuple):
    """State of `periodic_momentum`."""

    velocity: PyTree
    moved: PyTree  # x − x′
    updates: Array  # since the last momentum
    inner: Any


def mpie(
    regularisation: float = 0.1, friction: float = 0.7, period: int = 8
) -> optax.GradientTransformationExtraArgs:
    """Regularised PIE (`rpie`) with momentum: η = `friction`, every T = `period` updates.

    A period of 8 batches of 16 shots is about that of the paper, 100 updates of one.
    """
    return periodic_momentum(rpie(regularisation), friction, period)


def periodic_momentum(
    inner: optax.GradientTransformation, friction: float, period: int
) -> optax.GradientTransformationExtraArgs:
    """`inner` with a momentum of `friction` in [0, 1) after every `period` updates."""
    if not 0 <= friction < 1 or period < 1:
        raise ValueError(
            f"got a friction of {friction} and a period of {period}; give a number in [0, 1), and "
            "at least one update"
        )
    inner = optax.with_extra_args_support(inner)

    def init(params: PyTree) -> Momentum:
        still = jax.tree.map(jnp.zeros_like, params)
        return Momentum(still, still, jnp.zeros((), jnp.int32), inner.init(params))

    def update(grads: PyTree, state: Momentum, params: PyTree | None = None, **extra: Any) -> Any:
        updates, inner_state = inner.update(grads, state.inner, params, **extra)
        moved = jax.tree.map(jnp.add, state.moved, updates)
        due = state.updates + 1 == period
        faster = jax.tree.map(lambda v, d: friction * v + d, state.velocity, moved)
        velocity = jax.tree.map(lambda v, f: jnp.where(due, f, v), state.velocity, faster)
        updates = jax.tree.map(
            lambda u, f: u + jnp.where(due, friction * f, 0).astype(u.dtype), updates, faster
        )
        since = jax.tree.map(lambda d: jnp.where(due, 0, d).astype(d.dtype), moved)
        count = jnp.where(due, 0, state.updates + 1)
        return updates, Momentum(velocity, since, count, inner_state)

    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore
