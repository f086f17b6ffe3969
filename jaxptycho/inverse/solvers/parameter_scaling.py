"""Scaling of parameters to order one, independent of their physical units, for optimisers.

A part defines the typical size of its fields by `scale(grid) -> {field: size}` (a pixel for
positions, √(dose/N) for a probe, one radian of phase for a potential or an aberration); other
fields have size 1. Users read and write physical units throughout.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from ...physics.types import PyTree


def natural_units(params: PyTree) -> PyTree:
    """Typical size of every parameter, a tree of scalars like `params` (a model's arrays)."""

    def unit(path: tuple[Any, ...], leaf: Any) -> jax.Array:
        node = params
        for depth, key in enumerate(path):
            sizes = node.scale(params.grid) if hasattr(node, "scale") else {}
            name = getattr(key, "name", None)
            if name in sizes:
                size = sizes[name]
                size = size[path[depth + 1].key] if isinstance(size, dict) else size
                return jnp.asarray(size, jnp.finfo(leaf.dtype).dtype)
            node = child(node, key)
        return jnp.ones((), jnp.finfo(leaf.dtype).dtype)

    return jax.tree_util.tree_map_with_path(unit, params)


@jax.jit
def _natural(params: PyTree) -> tuple[PyTree, PyTree]:
    """Natural units, and the parameters in them, in one program to save start-up time."""
    units = natural_units(params)
    return units, _over(params, units)


def scale_parameters(inner: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Apply `inner` to parameters divided by the `natural_units` of the first model.

    `inner` receives these as the extra argument `units`.
    """
    inner = optax.with_extra_args_support(inner)

    def init(params: PyTree) -> Any:
        units, natural = _natural(params)
        return units, inner.init(natural)

    def update(
        grads: PyTree,
        state: Any,
        params: PyTree | None = None,
        *,
        value_fn: Callable[[Any], Array] | None = None,
        grad: PyTree | None = None,
        **extra: Any,
    ) -> Any:
        del grad
        units, state = state
        scaled = _times(grads, units)

        def value_of(
            natural: PyTree, model: Any = None, batch: Any = None, units: PyTree = units
        ) -> jax.Array:  # optax passes every extra argument
            # called only by line searches, for which `make_step` provides it
            assert value_fn is not None
            return value_fn(jax.tree.map(_physical, natural, params, units, is_leaf=_is_masked))

        updates, state = inner.update(
            scaled,
            state,
            _over(params, units),
            grad=scaled,
            value_fn=value_of,
            units=units,
            **extra,
        )
        return _times(updates, units), (units, state)

    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore


def restrict_line_search(
    inner: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    """Restrict the line search of `inner` to its parameters; all others are masked."""
    inner = optax.with_extra_args_support(inner)

    def update(grads: PyTree, state: Any, params: PyTree | None = None, **extra: Any) -> Any:
        return inner.update(grads, state, params, **(extra | {"grad": grads}))

    return optax.GradientTransformationExtraArgs(inner.init, update)  # pyright: ignore


def child(node: Any, key: Any) -> Any:
    """Child of a node of the tree under `key`, an entry of a path."""
    if isinstance(key, jax.tree_util.GetAttrKey):
        return getattr(node, key.name)
    return node[getattr(key, "key", getattr(key, "idx", None))]


def _is_masked(node: Any) -> bool:
    return isinstance(node, optax.MaskedNode)


def _physical(natural: Any, now: Any, unit: Array) -> Any:
    """A parameter in its physical unit; a masked one is unchanged."""
    return now if _is_masked(natural) else natural * unit


def _times(tree: PyTree, units: PyTree) -> PyTree:
    return jax.tree.map(jnp.multiply, tree, units)


def _over(tree: PyTree, units: PyTree) -> PyTree:
    return jax.tree.map(jnp.divide, tree, units)
