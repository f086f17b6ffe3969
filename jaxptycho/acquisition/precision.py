"""Double precision for what is called from programs in single precision."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import jax

F = TypeVar("F", bound=Callable[..., Any])


def in_double_precision(function: F) -> F:
    """Return the function, computing in float64: variances of a series range over 10¹²."""

    @wraps(function)
    def double(*args, **options):
        with jax.enable_x64(True):
            return function(*args, **options)

    return double  # pyright: ignore[reportReturnType]
