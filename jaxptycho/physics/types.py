"""Types of the values that functions exchange.

Lower-case `y x` run over the probe's window, upper-case `Y X` over the entire specimen, `v u`
over the detector, `z` over slices, `m` over incoherent modes, `b` over the shots of a batch.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Array, Complex, Float, Int

if TYPE_CHECKING:  # of any type: to type checkers jaxtyping's PyTree is unknown
    PyTree = Any
else:
    from jaxtyping import PyTree as PyTree

Index = int | np.integer | Int[Array | np.ndarray, ""]
Indices = Int[Array | np.ndarray, " b"]
Scalar = float | int | Float[Array | np.ndarray, ""]
Pair = tuple[Scalar, Scalar] | Float[Array | np.ndarray, "2"]  # (y, x)
Numbers = float | int | np.number | Array | np.ndarray | Sequence[Any]  # for np.asarray
Kernel = Complex[Array, "y x"]
Kernels = Complex[Array, "z y x"]
Waves = Complex[Array, "m y x"]
Window = Complex[Array, "z y x"]
Slices = Complex[Array, "z Y X"]
Stack = Float[Array, "z Y X"]
Intensity = Float[Array, "y x"]
Pattern = Float[Array, "v u"]
Patterns = Float[Array, "b v u"]
