"""Parameters as optimisers see them: every one of order one, whatever its physical unit.

A part says the typical size of its fields with `scale(grid) -> {field: size}` (a pixel for
positions, √(dose/N) for a probe, one radian of phase for a potential or an aberration); what
says nothing counts as 1. Users read and write physical units throughout.
"""

import jax
import jax.numpy as jnp
import optax


def natural_units(params):
    """The size of every parameter, a tree of scalars like `params` (a model's arrays)."""

    def unit(path, leaf):
        node = params
        for depth, key in enumerate(path):
            sizes = node.scale(params.grid) if hasattr(node, "scale") else {}
            name = getattr(key, "name", None)
            if name in sizes:
                size = sizes[name]
                size = size[path[depth + 1].key] if isinstance(size, dict) else size
                return jnp.asarray(size, leaf.real.dtype)
            node = _child(node, key)
        return jnp.ones((), leaf.real.dtype)

    return jax.tree_util.tree_map_with_path(unit, params)


def in_natural_units(inner: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """`inner`, working on parameters divided by the `natural_units` of the first model.

    It gets these as the extra argument `units`.
    """
    inner = optax.with_extra_args_support(inner)

    def init(params):
        units = natural_units(params)
        return units, inner.init(_over(params, units))

    def update(grads, state, params=None, *, value_fn=None, grad=None, **extra):
        del grad
        units, state = state
        scaled = _times(grads, units)
        updates, state = inner.update(
            scaled,
            state,
            _over(params, units),
            grad=scaled,
            value_fn=lambda p: value_fn(_times(p, units)),
            units=units,
            **extra,
        )
        return _times(updates, units), (units, state)

    return optax.GradientTransformationExtraArgs(init, update)


def _child(node, key):
    if isinstance(key, jax.tree_util.GetAttrKey):
        return getattr(node, key.name)
    return node[getattr(key, "key", getattr(key, "idx", None))]


def _times(tree, units):
    return jax.tree.map(jnp.multiply, tree, units)


def _over(tree, units):
    return jax.tree.map(jnp.divide, tree, units)
