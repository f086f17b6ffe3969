"""Conversion of trees of arrays to HDF5 and back, by the names of the tree.

Every array and number is stored under its path (`probe/waves`, `scan/positions/values`). All parts
of the tree that are not leaves (class names, static fields, None, tuples, dictionaries) form the
`outline`, plain JSON, from which `read_tree` builds the tree again. It uses only classes that
exist in the running program: a file names them and cannot import them.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import equinox as eqx
import h5py
import jax
import jax.numpy as jnp
import numpy as np

from ..distributed.gather import ShardedLeaf
from .hdf5 import H5, save_array

NUMBERS = {kind.__name__: kind for kind in (bool, int, float, complex)}
PLAIN = (bool, int, float, str, type(None))


def write_tree(group: H5, tree: Any, compress: bool = True) -> Any:
    """Write every array and number of `tree` in `group` under its path; return the outline."""
    leaves = {
        _name(path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        if _is_number(leaf)
    }
    for name, leaf in leaves.items():
        save_array(group, name, _values(leaf), compress)
    return _outline(tree, "", leaves)


def read_tree(group: H5, outline: Any, path: str = "") -> Any:
    """Tree that `write_tree` wrote, without a template."""
    if isinstance(outline, PLAIN):
        return outline
    ((kind, content),) = outline.items()
    if kind == "leaf":
        values = group[path][()]
        return (
            jnp.asarray(values)
            if content == "jax"
            else NUMBERS.get(content, lambda number: number)(values)
        )
    if kind == "unknown":
        raise ValueError(
            f"{path} was {content}, which a file cannot hold; pass like=… to put it back"
        )
    if kind in ("tuple", "list"):
        items = (read_tree(group, item, _join(path, i)) for i, item in enumerate(content))
        return tuple(items) if kind == "tuple" else list(items)
    values = {name: read_tree(group, item, _join(path, name)) for name, item in content.items()}
    return values if kind == "dict" else _instance(find_class(kind), values, path)


def read_like(group: H5, like: Any) -> Any:
    """Tree in `group` in the form of `like`, with the arrays and numbers of the file.

    `like` may be any registered tree (states of optimisers). Raises ValueError for an array that is
    missing, has another shape, or has no place in `like`.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(like)
    named = [(_name(path), leaf) for path, leaf in leaves]
    wanted = {name for name, leaf in named if _is_number(leaf)}
    stored = _stored(group)
    if wanted != stored:
        name = f"{group.name}/{min(wanted ^ stored)}"
        has = "lacks" if wanted - stored else "has"
        raise ValueError(
            f"{group.file.filename} {has} {name}, unlike what was asked for; give the same "
            "structure"
        )
    return structure.unflatten(
        [_like(group, name, leaf) if name in wanted else leaf for name, leaf in named]
    )


def find_class(name: str) -> type:
    """Class of the running program that a file calls `module:name`; its module may have changed."""
    module, _, qualified = name.partition(":")
    found = [cls for cls in _subclasses(eqx.Module) if cls.__qualname__ == qualified]
    exact = [cls for cls in found if cls.__module__ == module]
    if not found:
        raise ValueError(
            f"the file holds a {qualified} of {module}; define or import class {qualified}, or "
            "pass like=…"
        )
    return (exact or found)[-1]  # the newest, if a notebook's cell ran twice


def _outline(tree: Any, path: str, leaves: dict[str, Any]) -> Any:
    if tree is leaves.get(path, leaves) and not _is_key(tree):
        return {"leaf": "jax" if isinstance(tree, jax.Array | ShardedLeaf) else type(tree).__name__}

    def children(items: Iterable[tuple[Any, Any]]) -> dict:
        return {name: _outline(value, _join(path, name), leaves) for name, value in items}

    if type(tree) in PLAIN:
        return tree
    if type(tree) in (tuple, list):
        return {type(tree).__name__: list(children(enumerate(tree)).values())}
    if type(tree) is dict and all(isinstance(key, str) for key in tree):
        return {"dict": children(tree.items())}
    if isinstance(tree, eqx.Module):
        fields = [f.name for f in dataclasses.fields(type(tree)) if hasattr(tree, f.name)]
        return {
            f"{type(tree).__module__}:{type(tree).__qualname__}": children(
                (f, getattr(tree, f)) for f in fields
            )
        }
    return {"unknown": f"{type(tree).__name__} {getattr(tree, '__name__', '')}".strip()}


def _instance(cls: type, values: dict[str, Any], path: str) -> Any:
    """Instance with these fields, as equinox unflattens one: without its `__init__`."""
    fields = {f.name: f for f in dataclasses.fields(cls)}
    defaults = {n: f.default for n, f in fields.items() if f.default is not dataclasses.MISSING}
    if set(values) - set(fields) or set(fields) - set(values) - set(defaults):
        raise ValueError(
            f"{path or 'the file'} holds a {cls.__qualname__} with {', '.join(values)}, the class "
            f"now has {', '.join(fields)}; pass like=… or use the jaxptycho version that wrote it"
        )
    instance = object.__new__(cls)
    for name, value in (defaults | values).items():
        object.__setattr__(instance, name, value)
    return instance


def _like(group: H5, name: str, like: Any) -> Any:
    values = np.asarray(group[name][()])
    wanted = np.shape(_values(like))
    if values.shape != wanted:
        raise ValueError(
            f"{group.name}/{name} in {group.file.filename} has shape {values.shape}, expected "
            f"{wanted}"
        )
    if _is_key(like):
        return jax.random.wrap_key_data(jnp.asarray(values), impl=jax.random.key_impl(like))
    if isinstance(like, jax.Array):
        return jnp.asarray(values, like.dtype)
    return (
        values.astype(like.dtype)[()]
        if isinstance(like, (np.ndarray, np.generic))
        else type(like)(values)
    )


def _values(leaf: Any) -> np.ndarray | ShardedLeaf:
    if isinstance(leaf, ShardedLeaf):
        return leaf
    values = np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)
    # bfloat16 and the like
    return values.astype(np.float32) if values.dtype.kind == "V" else values


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _is_number(leaf: Any) -> bool:
    return isinstance(leaf, (*NUMBERS.values(), np.ndarray, np.generic, jax.Array, ShardedLeaf))


def _stored(group: H5) -> set[str]:
    names: set[str] = set()
    group.visititems(lambda name, item: names.add(name) if isinstance(item, h5py.Dataset) else None)
    return names


def _name(path) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _join(path: str, name) -> str:
    return f"{path}/{name}" if path else str(name)


def _subclasses(cls: type) -> Iterator[type]:
    for sub in cls.__subclasses__():
        yield sub
        yield from _subclasses(sub)
