"""Coverage of Fourier space by a tilt series: slabs, cones, and the missing wedge.

A view of a thin specimen measures the plane k_z = 0 in its frame, as thick as the inverse of the
specimen's thickness. With multislice propagation it measures, in the first Born approximation,
all |k_z| ≤ α k_r + λk_r²/2: the planes become cones that extend into the missing wedge.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import qmc

from ..physics.types import Numbers
from .depth import highest_depth_frequency


class TiltSeries(NamedTuple):
    """The geometry of a tilt series about the axis y."""

    tilts: Float[np.ndarray, " view"]  # rad
    semiangle: float  # rad
    wavelength: float  # Å
    thickness: float  # Å


class Coverage(NamedTuple):
    """Covered fractions (0 to 1) of the shells of a ball in Fourier space."""

    frequency: Float[np.ndarray, " s"]  # 1/Å, middle of every shell
    slabs: Float[np.ndarray, " s"]  # measured by slabs, single slice
    cones: Float[np.ndarray, " s"]  # measured by cones, multislice
    wedge: Float[np.ndarray, " s"]  # in the missing wedge
    filled: Float[np.ndarray, " s"]  # in the missing wedge, but measured by cones

    @property
    def of_ball(self) -> dict[str, float]:
        """Fractions of the entire ball, every shell weighted by its volume."""
        names = self._fields[1:]
        return {
            name: float(np.average(getattr(self, name), weights=self.frequency**2))
            for name in names
        }

    @property
    def filled_wedge(self) -> float:
        """Fraction of the missing wedge that cones fill; NaN without a wedge."""
        ball = self.of_ball
        return ball["filled"] / ball["wedge"] if ball["wedge"] else np.nan


def in_thin_slabs(kz: Any, ky: Any, kx: Any, series: TiltSeries) -> Bool[np.ndarray, "..."]:
    """Mask of frequencies [1/Å] that views of a thin specimen measure.

    |k_z′| ≤ 1/2t in the frame of one of the views.
    """
    return _any_view(series, kz, ky, kx, lambda along, across: along <= 0.5 / series.thickness)


def in_cones(kz: Any, ky: Any, kx: Any, series: TiltSeries) -> Bool[np.ndarray, "..."]:
    """Mask of frequencies [1/Å] that views measure by multislice.

    |k_z′| ≤ α k_r′ + λk_r′²/2 in the frame of one of the views, including the slab of the
    specimen's thickness at k_r = 0.
    """

    def measured(along: np.ndarray, across: np.ndarray) -> np.ndarray:
        return along <= np.maximum(
            highest_depth_frequency(across, series.semiangle, series.wavelength),
            0.5 / series.thickness,
        )

    return _any_view(series, kz, ky, kx, measured)


def in_wedge(kz: Any, ky: Any, kx: Any, tilts: Numbers) -> Bool[np.ndarray, "..."]:
    """Mask of frequencies in the missing wedge: outside the planes between the outermost tilts
    [rad].

    The plane of the view at θ is k_z = k_x tan θ.
    """
    angle = np.arctan2(kz, kx) - np.min(tilts)
    return np.broadcast_to(
        angle % np.pi > np.ptp(tilts), np.broadcast_shapes(*map(np.shape, (kz, ky, kx)))
    )


def coverage(
    series: TiltSeries, resolution: float, shells: int = 32, points: int = 2**17
) -> Coverage:
    """Coverage of the ball of radius 1/`resolution` [Å] by slabs and cones, shell by shell.

    Determined on quasi-random points (Sobol's sequence), the same number in every shell; 2¹⁷
    points are accurate to 0.1 % of the ball.
    """
    tilts = np.asarray(series.tilts, float)
    numbers = np.asarray([series.semiangle, series.wavelength, series.thickness, resolution], float)
    if tilts.ndim != 1 or not len(tilts) or not np.isfinite(tilts).all() or not (numbers > 0).all():
        raise ValueError(
            f"a coverage of tilts of shape {tilts.shape}, semiangle {series.semiangle} rad, "
            f"wavelength {series.wavelength} Å, thickness {series.thickness} Å to {resolution} Å; "
            "give at least one finite tilt in radians, and more than 0 for the others"
        )
    if np.ptp(tilts) > np.pi:
        raise ValueError(
            f"the tilts span {np.ptp(tilts):.4g} rad; give at most half a turn, in radians"
        )
    spread = qmc.Sobol(3, scramble=False).random_base2(int(np.ceil(np.log2(points))))
    radius = spread[:, 0] / resolution
    along = 2 * spread[:, 1] - 1
    turn = np.pi * spread[:, 2]  # one half, by Friedel symmetry
    across = radius * np.sqrt(1 - along**2)
    k = across * np.sin(turn), radius * along, across * np.cos(turn)
    shell = np.minimum((spread[:, 0] * shells).astype(int), shells - 1)
    cones = in_cones(*k, series)
    wedge = in_wedge(*k, tilts)
    count = np.bincount(shell, minlength=shells)
    parts = [
        np.bincount(shell, which, minlength=shells) / count
        for which in (in_thin_slabs(*k, series), cones, wedge, cones & wedge)
    ]
    return Coverage((np.arange(shells) + 0.5) / (shells * resolution), *parts)


def _any_view(series, kz, ky, kx, measured):
    result = np.zeros(np.broadcast_shapes(*map(np.shape, (kz, ky, kx))), bool)
    for tilt in np.atleast_1d(series.tilts):
        cos, sin = np.cos(tilt), np.sin(tilt)
        result |= measured(np.abs(kz * cos - kx * sin), np.hypot(kx * cos + kz * sin, ky))
    return result
