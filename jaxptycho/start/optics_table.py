"""Result of `measure_optics`: the table of measured quantities, evidence and candidates."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ..data.orientation import orientation_matrix
from .measured import Measured
from .optics_fit import OpticsFit, covariance
from .weak_object_likelihood import NAMES

SIGNIFICANT = 3.0  # standard deviations
HIGHER = {"C21": "coma", "C23": "threefold_astigmatism", "C30": "spherical_aberration"}
UNSURE_DEFOCUS = 0.1  # relative error, or
UNSURE_DEPTH = 1.0  # error over the depth of field λ/α², the larger one
UNSURE_ROTATION = 10.0  # °, error
PLAUSIBLE = {"C21": 1e6, "C23": 1e6, "C30": 1e8}  # Å, the largest of probe-forming lenses


@dataclass(frozen=True, eq=False)
class DefocusCurve:
    """J of every candidate over defocus [Å], all other parameters as fitted."""

    defocus: Float[np.ndarray, " n"]
    explained: dict[str, Float[np.ndarray, " n"]]  # by handedness and transform


@dataclass(frozen=True, eq=False)
class MeasuredOptics:
    """Measured optics and orientation of a scan; `rows()` is their table.

    True positions are those of the dataset after `transform` (one of `SCAN_TRANSFORMS`) and a
    counter-clockwise rotation of `rotation` [rad], −45° … 45°. `evidence` is J, the fraction of the
    images' variance that a weak phase explains, of each transform. Where `ambiguous`, the data fit
    `alternatives` as well. `aberrations` [Å] are those of `AberratedProbe`.
    """

    transform: str
    rotation: float
    aberrations: dict[str, float]
    semiangle: float  # rad
    depth_of_field: float  # λ/α² [Å]
    evidence: dict[str, float]
    ambiguous: bool
    alternatives: tuple[str, ...]
    rivals: int  # of them that are other fits, not the conjugate pair of one
    skewness: Measured
    curve: DefocusCurve
    warnings: tuple[str, ...]
    _rows: dict[str, Measured]

    def rows(self) -> dict[str, Measured]:
        """Measured quantities by the name that ends in their unit."""
        return dict(self._rows)

    @property
    def determined(self) -> bool:
        """True if the data exclude other optics, and the errors leave something to rely on."""
        defocus = self._rows["defocus_angstrom"]
        most = max(UNSURE_DEPTH * self.depth_of_field, UNSURE_DEFOCUS * abs(defocus.value))
        turn = self._rows["rotation_deg"]
        return not self.rivals and defocus.error < most and turn.error < UNSURE_ROTATION

    @property
    def matrix(self) -> Float[np.ndarray, "2 2"]:
        """Orientation as a matrix on positions (y, x)."""
        return orientation_matrix(self.transform, self.rotation)

    def oriented(self, positions: Float[np.ndarray, "shot 2"]) -> Float[np.ndarray, "shot 2"]:
        """Positions (y, x) [Å] in the frame of the detector, about their middle."""
        middle = (positions.min(0) + positions.max(0)) / 2
        return (positions - middle) @ self.matrix.T + middle


class ImageErrors(NamedTuple):
    """Errors that the images share, which their likelihood does not show."""

    defocus: float = 0.0  # relative, by the step of the detector and the thickness
    descan: Float[np.ndarray, "2 2"] = np.zeros((2, 2))  # 1/Å of the disc along Å of the scan


def optics_rows(
    fit: OpticsFit, transform: str, rotation: float, wavelength: float, shared: ImageErrors
) -> dict[str, Measured]:
    """Table of the fit.

    A disc that drifts by δS·r from where it is believed stretches and turns the scan by 1 + λ·df·δS
    (`superpixels`).
    """
    source = "likelihood of a weak object in the bright field"
    size = len(fit.theta)
    found = np.zeros((size, size))
    found[np.ix_(fit.free, fit.free)] = covariance(fit)
    error = np.sqrt(np.maximum(np.diag(found), 0.0))
    defocus = -float(fit.theta[0])
    # along and across the true axes, half of the trace and of the antisymmetric part
    squares = orientation_matrix(transform, rotation) ** 2
    stretch, turn = (
        abs(wavelength * defocus) / 2 * math.sqrt(np.sum(shared.descan**2 * axes))
        for axes in (squares, squares[::-1])
    )
    error[-1] = math.hypot(error[-1], turn)
    of_defocus = math.hypot(error[0], shared.defocus * defocus, stretch * defocus)
    rows = {"defocus_angstrom": Measured(defocus, of_defocus, "Å", source)}
    rows |= _magnitude("astigmatism", "C12", fit, found, source)
    words = source
    if transform != "none" and np.linalg.det(fit.mirror) > 0:
        total = np.rad2deg(np.angle(np.exp(1j * fit.theta[-1])))
        words += f"; after the transform {transform}, in all {total:.2f}°"
    of_rotation = min(float(np.rad2deg(error[-1])), 180.0)
    rows["rotation_deg"] = Measured(float(np.rad2deg(rotation)), of_rotation, "°", words)
    for symbol, extra in _higher_rows(fit, found, source).items():
        first = extra[f"{HIGHER[symbol]}_angstrom"]
        if (
            abs(first.value) > SIGNIFICANT * first.error > 0
            and abs(first.value) < PLAUSIBLE[symbol]
        ):
            rows |= extra
    return rows


def implausible_orders(fit: OpticsFit) -> list[str]:
    """Higher aberrations of the fit, in words, that are larger than those of any lens."""
    none = np.zeros((len(fit.theta), len(fit.theta)))
    return [
        f"a {HIGHER[symbol].replace('_', ' ')} of {1e-7 * abs(first.value):.2g} mm"
        for symbol, extra in _higher_rows(fit, none, "").items()
        if abs((first := extra[f"{HIGHER[symbol]}_angstrom"]).value) >= PLAUSIBLE[symbol]
    ]


def _higher_rows(fit, found, source):
    """Rows of every higher aberration, by its symbol."""
    rows = {
        symbol: _magnitude(HIGHER[symbol], symbol, fit, found, source) for symbol in ("C21", "C23")
    }
    i = NAMES.index("C30")
    error = math.sqrt(max(float(found[i, i]), 0.0))
    name = f"{HIGHER['C30']}_angstrom"
    return rows | {"C30": {name: Measured(float(fit.theta[i]), error, "Å", source)}}


def _magnitude(name, symbol, fit, found, source):
    """Magnitude and angle of an aberration of two components."""
    i = NAMES.index(f"{symbol}a")
    vector = fit.theta[i : i + 2]
    part = found[i : i + 2, i : i + 2]
    size = float(np.hypot(*vector))
    along = vector / max(size, 1e-30)
    across = np.array([-along[1], along[0]])
    fold = int(symbol[2])
    angle = np.rad2deg(math.atan2(vector[1], vector[0]) / fold)
    of_angle = np.rad2deg(math.sqrt(max(float(across @ part @ across), 0.0)) / max(size, 1e-30))
    of_angle = min(float(of_angle) / fold, 180.0 / fold)
    of_size = math.sqrt(max(float(along @ part @ along), 0.0))
    return {
        f"{name}_angstrom": Measured(size, of_size, "Å", source),
        f"{name}_angle_deg": Measured(float(angle), of_angle, "°", source),
    }
