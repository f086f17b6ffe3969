"""Conversion of numbers from files and callers to arrays."""

from typing import Any

import numpy as np

ACCEPTED = {bool: "buif", float: "uif", complex: "uifc"}  # kinds of numpy's types


def numbers(values: Any, what: str, dtype: type) -> np.ndarray:
    """Return `values` as an array of `dtype` (bool, float or complex), NaN where masked.

    The array has the machine's byte order. Raises ValueError for text, records and any other
    type that `dtype` cannot represent.
    """
    given = values if isinstance(values, np.ma.MaskedArray) else np.asarray(values)
    if given.dtype.kind not in ACCEPTED[dtype]:
        required = {bool: "true or false", float: "real numbers", complex: "numbers"}[dtype]
        named = "text" if given.dtype.kind in "SUO" else str(given.dtype)
        raise ValueError(
            f"{what} came as {named}; {required} are required, convert and store them again"
        )
    if dtype is bool and given.dtype.kind == "f" and not np.isfinite(given).all():
        raise ValueError(
            f"{what} holds values that are not finite; true or false are required for every pixel"
        )
    made = given.astype(dtype)
    return np.asarray(
        made.filled(np.nan) if isinstance(made, np.ma.MaskedArray) and dtype is not bool else made
    )
