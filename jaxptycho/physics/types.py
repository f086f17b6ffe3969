"""Names for the values that cross borders.

Lower-case `y x` run over the probe's window, upper-case `Y X` over the whole specimen, `v u`
over the detector, `z` over slices, `m` over incoherent modes, `b` over the shots of a batch.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Array, Complex, Float, Int

Index = int | np.integer | Int[Array | np.ndarray, ""]
Indices = Int[Array | np.ndarray, " b"]
Numbers = float | int | Sequence | np.number | np.ndarray | Array  # as np.asarray accepts
Scalar = float | int | Float[Array | np.ndarray, ""]
Pair = tuple[Scalar, Scalar] | Float[Array | np.ndarray, "2"]  # (y, x)
Kernel = Complex[Array, "y x"]
Kernels = Complex[Array, "z y x"]
Waves = Complex[Array, "m y x"]
Window = Complex[Array, "z y x"]
Slices = Complex[Array, "z Y X"]
Stack = Float[Array, "z Y X"]
Intensity = Float[Array, "y x"]
Pattern = Float[Array, "v u"]
Patterns = Float[Array, "b v u"]
