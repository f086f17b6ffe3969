"""Diagnosis of a diverged reconstruction: repetition of the epoch step by step, and its cause."""

from collections.abc import Callable, Iterable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from ..data import Batch
from ..distributed.sharding import restore, snapshot
from ..distributed.slabs.layout import require_lent
from ..inverse.solvers.parameter_scaling import natural_units
from ..inverse.step import trainable
from ..model import Model, require_inside


def first_nonfinite(
    step: Callable,
    objective: Callable,
    optimiser: optax.GradientTransformation,
    model: Model,
    state: Any,
    batches: Iterable[Batch],
) -> str:
    """Name of the first non-finite value at the first step of `batches` that fails.

    It is a parameter that `optimiser` updates, or the loss. `step` minimises
    `objective(model, batch)`; `model` and `state` are those before.
    """
    for batch in batches:
        before = snapshot(model)
        model, state, info = step(model, state, batch)
        if not bool(np.all(info["finite"])):
            good = restore(before)
            return _cause(good, eqx.filter_jit(eqx.filter_grad(objective))(good, batch), optimiser)
    return worst(model, not_finite(model)) or "a constraint after the epoch"


def require_held(model: Model, views: int, slabs: int) -> None:
    """Raise ValueError where positions leave the object, or angles of views what slabs know of
    their neighbours, and before both where a parameter is no number.
    """
    require_finite(model)
    try:
        for view in range(views):
            require_inside(model, view)
    except ValueError as error:
        raise ValueError(
            f"{error} (specimen.margin_angstrom, or a lower rate of the scan)"
        ) from error
    if slabs > 1:
        require_lent(model)


@eqx.filter_jit
def _all_finite(model: Model) -> jax.Array:
    leaves = jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array))
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))


def all_finite(model: Model) -> bool:
    """True if every parameter is a finite number."""
    return bool(_all_finite(model))


def require_finite(model: Model) -> None:
    """Raise ValueError with the name of a non-finite parameter, and its first such entry."""
    if all_finite(model):
        return
    for name, leaf in named_arrays(model):
        if not bool(jnp.isfinite(leaf).all()):
            place = [
                int(axis[0]) for axis in jnp.nonzero(~jnp.isfinite(jnp.atleast_1d(leaf)), size=1)
            ]
            raise ValueError(
                f"{name.removesuffix('.values')}{place or ''} is not a number: this is no matter "
                "of a rate or a margin; check what it came from (the guess of the probe, the "
                "alignment of the views in alignment.csv)"
            )


def _cause(model: Model, grads: Model, optimiser: optax.GradientTransformation) -> str:
    broken = not_finite(model)
    if broken:
        return worst(model, broken)
    everything = lambda params: jax.tree.map(lambda _: True, params)  # noqa: E731
    moved = getattr(optimiser, "moved", everything)(trainable(model))
    gradients = not_finite(eqx.filter(grads, moved))
    return (
        f"the gradient of {worst(model, gradients)}"
        if gradients
        else "the loss itself, at finite parameters"
    )


def not_finite(tree: Any) -> list[str]:
    """Paths of the arrays that hold something not finite."""
    return [name for name, leaf in named_arrays(tree) if not bool(jnp.isfinite(leaf).all())]


def worst(model: Model, names: list[str]) -> str:
    """The one of `names` whose values are furthest from their natural size, and how far."""
    units = dict(named_arrays(natural_units(trainable(model))))
    size = {
        name: float(jnp.max(jnp.abs(leaf) / units[name]))
        for name, leaf in named_arrays(model)
        if name in names
    }
    if not size:
        return ""
    name = max(size, key=lambda n: np.inf if np.isnan(size[n]) else size[n])
    return f"{name} (largest value {size[name]:.3g} times its natural size)"


def named_arrays(tree: Any) -> list[tuple[str, Any]]:
    """Every inexact array of a tree with its path."""
    leaves = jax.tree_util.tree_leaves_with_path(eqx.filter(tree, eqx.is_inexact_array))
    return [(jax.tree_util.keystr(path, simple=True, separator="."), leaf) for path, leaf in leaves]
