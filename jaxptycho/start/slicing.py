"""Number of slices of a thick specimen."""

import math

from ..physics.grids import Grid

PROPAGATED = 1.5  # rad, πλΔz k² of a slice: it biases the phase of an atomic column by 1 %
REACH = 2.0  # 1/Å, beyond which atoms scatter little


def slice_limit(grid: Grid) -> float:
    """Greatest thickness [Å] of a slice: a wave at the camera's reach, at most `REACH`, is
    propagated through it by `PROPAGATED`.

    6.1 Å at 300 kV and 2.9 Å at 80 kV; more where the camera reaches less far, as for proteins.
    """
    reach = min(REACH, 1 / (2 * max(grid.pixel)))
    return PROPAGATED / (math.pi * grid.wavelength * reach**2)


def beyond_focus(thickness: float | None, grid: Grid, semiangle: float | None) -> bool:
    """True if a `thickness` [Å] exceeds the depth of field λ/α² of a beam of `semiangle` α [rad].

    A tilt then moves what the slices hold by as much as the resolution; a fraction of a milliradian
    is never excluded.
    """
    return (thickness or 0.0) * (semiangle or 0.0) ** 2 > grid.wavelength


def fitting_slices(thickness: float | None, grid: Grid) -> int:
    """Number of slices for a `thickness` [Å], 1 if it is not known."""
    return max(1, math.ceil((thickness or 0.0) / slice_limit(grid) - 1e-9))
