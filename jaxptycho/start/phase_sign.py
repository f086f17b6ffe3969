"""Sign of a phase from its skewness: atoms, of positive potential, are bright on darker ground."""

import math
from typing import Any

import numpy as np
from jaxtyping import Float

from ..data.tiles import tiles_of
from ..direct.placement import place
from .measured import Measured
from .optics_fit import OpticsFit
from .weak_object_likelihood import phase_spectrum

PARTS = 5  # of the scan along an axis, left out in turn
MAX_POINTS = 4096
FEWEST_IN_PART = 4


def phase_skewness(fit: OpticsFit, positions: Float[np.ndarray, "shot 2"]) -> Measured:
    """Skewness of the phase at the positions, with its jackknife error."""
    chosen = np.arange(len(positions))[:: math.ceil(len(positions) / MAX_POINTS)]
    phase = phase_at_positions(fit, positions, chosen)
    parts = tiles_of(positions, PARTS)[chosen]
    sums = np.stack(
        [np.bincount(parts, phase**n, minlength=int(parts.max(initial=0)) + 1) for n in range(4)],
        -1,
    )
    sums = sums[sums[:, 0] >= FEWEST_IN_PART]
    source = "skewness of the phase"
    if len(sums) < 4:
        return Measured(0.0, float("inf"), "", source)
    total = sums.sum(0)
    left_out = np.array([_skewness(total - part) for part in sums])
    n = len(sums)
    error = float(np.sqrt((n - 1) / n * np.sum((left_out - left_out.mean()) ** 2)))
    return Measured(_skewness(total), error, "", source)


def _skewness(sums):
    """Skewness from Σ1, Σx, Σx², Σx³."""
    count, *moments = sums
    first, second, third = (m / max(count, 1) for m in moments)
    variance = max(second - first**2, 1e-30)
    return float((third - 3 * first * second + 2 * first**3) / variance**1.5)


def phase_at_positions(
    fit: OpticsFit, positions: Float[np.ndarray, "shot 2"], shots: np.ndarray
) -> Float[np.ndarray, " n"]:
    """Expected phase [relative] at the positions of some shots, of a fit one by one."""
    bands: Any = fit.bands
    variance: Any = fit.variance
    spectrum = phase_spectrum(fit.theta, fit.mirror, bands, variance)
    used = np.asarray(bands.used) > 0
    q = np.asarray(bands.q, float)[used]
    away = positions[shots] - place(positions).grid.origin
    waves = np.exp(2j * np.pi * (away @ q.T).astype(np.float32))
    return np.real(waves @ spectrum[used])
