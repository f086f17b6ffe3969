"""Rates that a loop changes between steps, in the optimiser's state: nothing is traced again."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from ..parts.slices import mean_slice
from ..physics.types import PyTree
from .step import PerPart, named


class Adjusted(NamedTuple):
    """State of an `adjustable` optimiser."""

    rates: dict[str, jax.Array]  # factor of the updates of every part
    level: jax.Array  # common factor
    fall: jax.Array  # by which the level is lower after every step, down to zero
    tied: jax.Array  # whether all slices of the specimen move alike
    inner: Any


def adjustable(
    inner: optax.GradientTransformation, parts: tuple[str, ...], ties: bool = False
) -> PerPart:
    """`inner` with its updates of each of `parts` multiplied by a rate, and all by a level.

    Both are in the state and begin at 1; `adjust` changes them. If it `ties`, `adjust` can also tie
    the slices of the specimen: gradients and updates are then their means over the slices.
    """
    inner = optax.with_extra_args_support(inner)

    def init(params: PyTree) -> Adjusted:
        one = jnp.ones((), jnp.float32)
        rates = {part: one for part in parts}
        return Adjusted(
            rates, one, jnp.zeros((), jnp.float32), jnp.zeros((), bool), inner.init(params)
        )

    def update(grads: PyTree, state: Adjusted, params: PyTree | None = None, **extra: Any) -> Any:
        grads = _tied(grads, state) if ties else grads
        updates, inner_state = inner.update(grads, state.inner, params, **extra)
        updates = _tied(updates, state) if ties else updates

        def scaled(part: str, leaf: jax.Array) -> jax.Array:
            factor = state.level * state.rates.get(part, jnp.ones((), jnp.float32))
            return (factor.astype(leaf.real.dtype) * leaf).astype(leaf.dtype)

        updates = jax.tree.map(scaled, named(params, parts), updates)
        level = jnp.maximum(state.level - state.fall, 0.0)
        return updates, state._replace(level=level, inner=inner_state)

    made = PerPart(init, update)  # pyright: ignore
    made.moved = getattr(inner, "moved", lambda params: jax.tree.map(lambda _: True, params))
    return made


def _tied(changes: PyTree, state: Adjusted) -> PyTree:
    """Gradients or updates, while the slices are tied with their means over the slices."""
    mean = mean_slice(changes.specimen)
    alike = jax.tree.map(lambda m, c: jnp.where(state.tied, m, c), mean, changes.specimen)
    return eqx.tree_at(lambda c: c.specimen, changes, alike)


def adjust(
    state: Adjusted,
    rates: Mapping[str, float],
    level: float = 1.0,
    fall: float = 0.0,
    tied: bool = False,
) -> Adjusted:
    """The state with other rates; arrays keep their dtype and sharding."""

    def set_to(value: float, old: jax.Array) -> jax.Array:
        # `device_put` corrupts arrays of processes with one device (jax 0.10.2)
        made = np.asarray(value, old.dtype)
        return jax.make_array_from_callback(old.shape, old.sharding, lambda _: made)

    return state._replace(
        rates={part: set_to(rates[part], old) for part, old in state.rates.items()},
        level=set_to(level, state.level),
        fall=set_to(fall, state.fall),
        tied=set_to(tied, state.tied),
    )
