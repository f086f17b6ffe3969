"""Equality of functions by what they do: those made alike share one compiled program.

`optax.adam(1e-2)` returns a new function in every call, and `jit` would compile each step of it
again. Two functions with the same code that hold equal values compute the same if the code is that
of a library. A user's function may read variables that have changed: it is never shared.
"""

from collections.abc import Callable, Hashable, Mapping
from functools import lru_cache, partial
from types import FunctionType, MethodType
from typing import Any

import jax
import numpy as np
from jax.core import Tracer
from jax.sharding import Mesh

KEPT = 16  # programs
MAX_BYTES = 4096  # of an array that is compared; a larger one would stay in memory with its program
LIBRARIES = {"jaxptycho", "jax", "optax", "equinox"}
CHECKERS = "jaxtyping"  # wraps functions to check their annotations, and changes nothing
PLAIN = (type(None), bool, int, float, complex, str, bytes, type, np.generic, np.dtype, Mesh)


class Unknown(Exception):
    """A value that cannot be compared."""


class Alike:
    """Functions, equal to others with the same code that hold equal values."""

    def __init__(self, *functions: Any) -> None:
        self.functions = functions
        self.key = content_key(functions)
        try:
            self.hash = hash(self.key)
        except TypeError as error:
            raise Unknown(functions) from error

    def __hash__(self) -> int:
        return self.hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Alike) and self.key == other.key


def made_once(make: Callable[..., Any], *functions: Any) -> Any:
    """`make(*functions)`, the same object for functions that are alike."""
    try:
        alike = Alike(*functions)
    except Unknown:
        return make(*functions)
    return _made(make, alike)


@lru_cache(maxsize=KEPT)
def _made(make: Callable[..., Any], alike: Alike) -> Any:
    return make(*alike.functions)


def content_key(value: Any, holders: tuple[int, ...] = ()) -> Hashable:
    """A key that is equal for equal values; raises Unknown where there is none.

    `holders` are the identities of the functions that hold the value, as they may hold each other.
    """
    if isinstance(value, PLAIN):
        return type(value), value  # 1 == 1.0 == True are different programs
    if id(value) in holders:
        return "holder", holders.index(id(value))
    inside = partial(content_key, holders=(*holders, id(value)))
    if isinstance(value, tuple | list):
        return (
            type(value),
            *map(inside, value),
            *map(inside, getattr(value, "__dict__", {}).items()),
        )
    if isinstance(value, Mapping):
        return type(value), *map(inside, value.items())
    if isinstance(value, partial):
        return partial, inside(value.func), inside(value.args), inside(value.keywords)
    if isinstance(value, MethodType):
        return MethodType, inside(value.__func__), inside(value.__self__)
    if isinstance(value, FunctionType):
        return _of_function(value, inside)
    if isinstance(value, np.ndarray | jax.Array):
        return _of_array(value)
    if callable(value) and hasattr(value, "lower"):  # what `jit` returns, with its own programs
        return "jit", value
    return _of_tree(value, inside)


def _of_function(function: FunctionType, inside: Callable[[Any], Hashable]) -> Hashable:
    wrapped = getattr(function, "__wrapped__", None)
    if wrapped is not None and function.__globals__.get("__name__", "").startswith(CHECKERS):
        return inside(wrapped)
    if (function.__module__ or "").partition(".")[0] not in LIBRARIES:
        raise Unknown(function)
    try:
        cells = [cell.cell_contents for cell in function.__closure__ or ()]
    except ValueError as error:  # a variable that is not set
        raise Unknown(function) from error
    held = (cells, function.__defaults__, function.__kwdefaults__)
    return function.__module__, function.__code__, inside(held)


def _of_array(array: np.ndarray | jax.Array) -> Hashable:
    if array.nbytes > MAX_BYTES or isinstance(array, Tracer):
        raise Unknown(array)
    values = np.asarray(array)
    return type(array), values.shape, values.dtype, values.tobytes()


def _of_tree(tree: Any, inside: Callable[[Any], Hashable]) -> Hashable:
    leaves, structure = jax.tree.flatten(tree)
    if jax.tree_util.treedef_is_leaf(structure):
        raise Unknown(tree)
    return structure, inside(leaves)
