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
                return jnp.asarray(size, jnp.finfo(leaf.dtype).dtype)
            node = child(node, key)
        return jnp.ones((), jnp.finfo(leaf.dtype).dtype)

    return jax.tree_util.tree_map_with_path(unit, params)


@jax.jit
def _natural(params):
    """The natural units, and the parameters in them; one program, since each that runs alone takes its start-up time."""
    units = natural_units(params)
    return units, _over(params, units)


def scale_parameters(inner: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """`inner`, working on parameters divided by the `natural_units` of the first model.

    It gets these as the extra argument `units`.
    """
    inner = optax.with_extra_args_support(inner)

    def init(params):
        units, natural = _natural(params)
        return units, inner.init(natural)

    def update(grads, state, params=None, *, value_fn=None, grad=None, **extra):
        del grad
        units, state = state
        scaled = _times(grads, units)

        def value_of(
            natural, model=None, batch=None, units=units
        ):  # optax hands every extra argument on
            assert (
                value_fn is not None
            )  # asked for by line searches alone, which `make_step` serves
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

    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore[reportArgumentType]


def restrict_line_search(
    inner: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    """`inner` on its share of the parameters, the others masked: its line search varies that share alone."""
    inner = optax.with_extra_args_support(inner)

    def update(grads, state, params=None, **extra):
        return inner.update(grads, state, params, **(extra | {"grad": grads}))

    return optax.GradientTransformationExtraArgs(inner.init, update)  # pyright: ignore[reportArgumentType]


def child(node, key):
    """What a node of the tree holds under `key`, an entry of a path."""
    if isinstance(key, jax.tree_util.GetAttrKey):
        return getattr(node, key.name)
    return node[getattr(key, "key", getattr(key, "idx", None))]


def _is_masked(node):
    return isinstance(node, optax.MaskedNode)


def _physical(natural, now, unit):
    """A parameter in its physical unit; one that its optimiser does not see is as it is now."""
    return now if _is_masked(natural) else natural * unit


def _times(tree, units):
    return jax.tree.map(jnp.multiply, tree, units)


def _over(tree, units):
    return jax.tree.map(jnp.divide, tree, units)
