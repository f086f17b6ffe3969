"""Rule one: variation is a value.

A plain array is shared by all shots. `PerShot(values)` or `PerView(values)` anywhere inside
a model gives every shot or view its own entry of the leading axis (nested for both:
`PerView(PerShot(values))`, values `[view, shot, …]`). `select` resolves them in one place,
before the physics, which never sees the difference.
"""

from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from ..physics.types import Index

T = TypeVar("T")


class PerShot(eqx.Module):
    """One entry of the leading axis for every shot."""

    values: PyTree


class PerView(eqx.Module):
    """One entry of the leading axis for every view of a tilt series."""

    values: PyTree


if TYPE_CHECKING:  # to the reader of a method, a selected value
    Varying = Annotated[Any | T, "shared, PerShot or PerView"]
else:  # to the constructor, any of the three

    class Varying:
        """`Varying[T]`: a T shared by all shots, or one for each by PerShot or PerView."""

        def __class_getitem__(cls, kind):
            return kind | PerShot | PerView


def plain(value: PyTree) -> PyTree:
    """The values of all shots and views, without the PerShot and PerView around them."""
    while isinstance(value, (PerShot, PerView)):
        value = value.values
    return value


def as_array(value):
    """Numbers as arrays, so that they can be refined; what varies stays as it is."""
    return jnp.asarray(value, float) if isinstance(value, (int, float, tuple, list, np.ndarray)) else value


def select(tree: PyTree, kind: type, index: Index) -> PyTree:
    """`tree` with every `kind` (PerShot or PerView) replaced by its entry `index`."""

    def is_kind(node):
        return isinstance(node, kind)

    def pick(node):
        return jax.tree.map(lambda values: values[index], node.values) if is_kind(node) else node

    return jax.tree.map(pick, tree, is_leaf=is_kind)


def only_seen(updates: PyTree, view: Index, shots, weight) -> PyTree:
    """`updates` of a model with the entries of shots and views outside the batch set to zero.

    Momentum would otherwise keep moving parameters of shots that the gradient says nothing of.
    """

    def of_shots(node):
        if not isinstance(node, PerShot):
            return node

        def mask(values):
            seen = jnp.zeros(values.shape[0], bool).at[shots].max(weight > 0)
            return values * seen.reshape(-1, *(1 for _ in values.shape[1:]))

        return PerShot(jax.tree.map(mask, node.values))

    def of_views(node):
        if not isinstance(node, PerView):
            return of_shots(node)
        own = select(node, PerView, view)
        own = jax.tree.map(of_shots, own, is_leaf=lambda n: isinstance(n, PerShot))
        return PerView(jax.tree.map(lambda v, o: jnp.zeros_like(v).at[view].set(o), node.values, own))

    return jax.tree.map(of_views, updates, is_leaf=lambda n: isinstance(n, (PerShot, PerView)))
