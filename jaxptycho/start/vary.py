"""Separate entries for every shot or view of a shared parameter of an existing model."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from ..data import Dataset
from ..inverse.step import path_of, require_parameters, trainable, unwrapped
from ..model import Model
from ..parts.indexed import PerShot, PerView

OVER = ("shot", "view")


def is_varying(node: Any) -> bool:
    """True if a node of a model has entries of shots or views."""
    return isinstance(node, PerShot | PerView)


def varied(model: Model, over: Mapping[str, str], data: Dataset) -> Model:
    """The model with a separate copy of the fields named by `over` for every shot or view.

    `{"probe.aberrations.C10": "shot", "detector.factor": "view"}`: paths of parts or fields,
    without the wrappers in between. What varies already stays as it is. Raises ValueError for a
    path that the model does not have.
    """
    paths = {unwrapped(name): what for name, what in over.items()}
    known = [path_of(path) for path, _ in jax.tree_util.tree_leaves_with_path(trainable(model))]
    unused = [
        name for name in paths if not any(f"{path}.".startswith(f"{name}.") for path in known)
    ]
    require_parameters(trainable(model), unused)

    def change(path: Any, leaf: Any) -> Any:
        whole = f"{path_of(path)}."
        covering = [name for name in paths if whole.startswith(f"{name}.")]
        if not covering or is_varying(leaf) or not eqx.is_inexact_array(leaf):
            return leaf
        return copies(leaf, paths[max(covering, key=len)], data)

    return jax.tree_util.tree_map_with_path(change, model, is_leaf=is_varying)


def copies(value: Any, over: str, data: Dataset) -> PerShot | PerView:
    """An array repeated for every "shot" of every view, or for every "view"."""
    shape = jnp.shape(value)
    if over == "view":
        return PerView(jnp.tile(value, (data.n_views, *(1 for _ in shape))))
    if over != "shot":
        raise ValueError(f"a field varies over {', '.join(OVER)}; got {over!r}")
    views = () if data.n_views == 1 else (data.n_views,)
    repeated = PerShot(jnp.tile(value, (*views, max(data.n_shots), *(1 for _ in shape))))
    return PerView(repeated) if views else repeated
