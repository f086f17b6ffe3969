"""Values that vary over shots or views: variation is a property of a value, not of a part.

A plain array is shared by all shots. `PerShot(values)` or `PerView(values)` anywhere inside
a model gives every shot or view a separate entry of the leading axis (nested for both:
`PerView(PerShot(values))`, values `[view, shot, …]`). `select` resolves them in one place,
before the physics, which receives plain arrays only.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..physics.types import Index, Indices, PyTree

T = TypeVar("T")


class PerShot(eqx.Module):
    """One entry of the leading axis for every shot."""

    values: PyTree


class PerView(eqx.Module):
    """One entry of the leading axis for every view of a tilt series."""

    values: PyTree


if TYPE_CHECKING:  # type checkers see the selected value, as methods do
    Varying = Annotated[Any | T, "shared, PerShot or PerView"]
else:  # at run time constructors accept all three forms

    class Varying:
        """Type `Varying[T]`: a T shared by all shots, or one T per shot or view."""

        def __class_getitem__(cls, kind: Any) -> Any:
            return kind | PerShot | PerView


def plain(value: PyTree) -> PyTree:
    """The values of all shots and views, without the PerShot and PerView around them."""
    while isinstance(value, (PerShot, PerView)):
        value = value.values
    return value


def as_array(value: Any) -> Any:
    """Numbers as arrays, which can be refined; arrays, PerShot and PerView unchanged."""
    return (
        jnp.asarray(value, float)
        if isinstance(value, (int, float, tuple, list, np.ndarray))
        else value
    )


def select(tree: PyTree, kind: type, index: Index) -> PyTree:
    """`tree` with every `kind` (PerShot or PerView) replaced by its entry `index`."""

    def is_kind(node: Any) -> bool:
        return isinstance(node, kind)

    def pick(node: Any) -> Any:
        return jax.tree.map(lambda values: values[index], node.values) if is_kind(node) else node

    return jax.tree.map(pick, tree, is_leaf=is_kind)


def first_shot(tree: T) -> T:
    """`tree` with the values of the first shot of the first view."""
    return select(select(tree, PerView, 0), PerShot, 0)


def axis_size(tree: PyTree, kind: type) -> int:
    """Number of entries of the first `kind` (PerShot or PerView) in `tree`, 1 without any."""
    found = jax.tree.leaves(tree, is_leaf=lambda node: isinstance(node, kind))
    nodes = [node for node in found if isinstance(node, kind)]
    return jax.tree.leaves(nodes[0])[0].shape[0] if nodes else 1


def map_varying(function: Callable[..., PyTree], value: PyTree) -> PyTree:
    """`function` of a shared value, or of every entry of a PerShot or PerView, wrapped likewise."""
    if isinstance(value, (PerShot, PerView)):
        return type(value)(jax.vmap(lambda entry: map_varying(function, entry))(value.values))
    return function(value)


def vmap_shots(function: Callable[..., PyTree], tree: PyTree) -> PyTree:
    """`function(tree)` with the values of every shot of every view, along one leading axis."""
    views = axis_size(tree, PerView)
    shots = axis_size(select(tree, PerView, 0), PerShot)

    def of_view(view: Index) -> PyTree:
        own = select(tree, PerView, view)
        return jax.vmap(lambda shot: function(select(own, PerShot, shot)))(jnp.arange(shots))

    values = jax.vmap(of_view)(jnp.arange(views))
    return jax.tree.map(lambda v: v.reshape(-1, *v.shape[2:]), values)


def add(value: PyTree, change: PyTree) -> PyTree:
    """value + change, where either may be shared, PerShot or PerView; wrapped as `value` is."""
    for kind in (PerView, PerShot):
        if isinstance(value, kind):
            separate = isinstance(change, kind)
            entries = change.values if separate else change
            return kind(jax.vmap(add, in_axes=(0, 0 if separate else None))(value.values, entries))
        if isinstance(change, kind):
            raise ValueError(
                "the change differs from entry to entry; wrap the value that it changes in "
                f"{kind.__name__} as well"
            )
    if not eqx.is_array(value):
        raise ValueError(f"got the fixed numbers {value}; make them an array, which can be moved")
    return value + change.astype(value.dtype)


def mask_unseen_updates(
    updates: PyTree, view: Index, shots: Indices, weight: Float[Array | np.ndarray, " b"]
) -> PyTree:
    """`updates` of a model with the entries of shots and views outside the batch set to zero.

    Momentum would otherwise keep moving parameters on which the gradient does not depend.
    """

    def of_shots(node: Any) -> Any:
        if not isinstance(node, PerShot):
            return node

        def mask(values: Array) -> Array:
            seen = jnp.zeros(values.shape[0], bool).at[shots].max(weight > 0)
            return values * seen.reshape(-1, *(1 for _ in values.shape[1:]))

        return PerShot(jax.tree.map(mask, node.values))

    def of_views(node: Any) -> Any:
        if not isinstance(node, PerView):
            return of_shots(node)
        own = select(node, PerView, view)
        own = jax.tree.map(of_shots, own, is_leaf=lambda n: isinstance(n, PerShot))
        return PerView(
            jax.tree.map(lambda v, o: jnp.zeros_like(v).at[view].set(o), node.values, own)
        )

    return jax.tree.map(of_views, updates, is_leaf=lambda n: isinstance(n, (PerShot, PerView)))
