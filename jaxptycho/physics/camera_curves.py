"""Modulation transfer curves of cameras, from zero to Nyquist, for `ModulationTransfer`.

Curves of makers and papers belong to a voltage and a mode and are read from a file; these are for
what a data sheet states in one number, or for a start that is refined.
"""

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

SAMPLES = 65  # of a curve


def square_pixel() -> Float[np.ndarray, " q"]:
    """Curve sin(πq)/(πq) of a camera that counts each electron in the pixel that it hits.

    q in cycles per pixel, 2/π at Nyquist: no camera of one event per electron transfers more
    (McMullan et al., Ultramicroscopy 109, 1126 (2009)).
    """
    return np.sinc(_frequencies())


def stretched(at_nyquist: float, exponent: float = 1.0) -> Float[np.ndarray, " q"]:
    """Curve M^((q/q_N)^p), which is M = `at_nyquist` there; p = `exponent`.

    p = 2 is a Gaussian point spread, p = 1 one with the tails of a Lorentzian, as scattering in the
    sensor makes them.
    """
    if not 0 < at_nyquist <= 1 or exponent <= 0:
        raise ValueError(
            f"a transfer of {at_nyquist} at Nyquist with exponent {exponent}; give a fraction "
            "above 0 and up to 1, and a positive exponent"
        )
    return np.exp(math.log(at_nyquist) * (2 * _frequencies()) ** exponent)


CAMERA_CURVES: dict[str, Callable[..., Float[np.ndarray, " q"]]] = {
    curve.__name__: curve for curve in (square_pixel, stretched)
}


def _frequencies() -> Float[np.ndarray, " q"]:
    return np.linspace(0, 0.5, SAMPLES)
