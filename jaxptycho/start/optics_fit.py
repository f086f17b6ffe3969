"""Maximum of the likelihood of the optics, its curvature, and the errors from both."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.linalg
from jaxtyping import Bool, Float
from scipy.optimize import minimize

from .aliased_likelihood import Spectra, aliased_evidence_and_scores, likely_spectra
from .aliases import AliasedSidebands
from .sidebands import RINGS, Sidebands
from .weak_object_likelihood import NAMES, evidence_and_scores, ring_variance

ROTATION_UNIT = 0.1  # rad
DIFFERENCE = 0.02  # units, for second derivatives
LONGEST_STEP = 1.0  # units, of the first step
MOST_STEPS = 12
SETTLED = 0.2  # slope of ln L by a standard error, at the maximum
SECTORS = 12  # of the direction of Q
FAR_BEHIND = 6.0  # standard deviations of ln L, from which a candidate is given up
CONTRADICTED = 3.0  # standard deviations of the number of frequencies for a candidate
RIGID = 1e-5  # of the largest curvature, the smallest that a step is divided by

Free = Bool[np.ndarray, " p"]
BASE: Free = np.array([name in ("C10", "C12a", "C12b") for name in NAMES] + [True])
ALL: Free = np.ones(len(NAMES) + 1, bool)


@dataclass(frozen=True, eq=False)
class OpticsFit:
    """Optics `theta` (aberrations of `NAMES` [Å], rotation [rad]) and their likelihood.

    `mirror` acts on positions (y, x) before the rotation. `each` is ln L of every frequency and
    `slopes` its derivatives by the `free` parameters in `units`.
    """

    theta: Float[np.ndarray, " p"]
    mirror: Float[np.ndarray, "2 2"]
    free: Free
    units: Float[np.ndarray, " p"]
    bands: Sidebands | AliasedSidebands
    variance: Float[np.ndarray, " ring"] | Spectra
    each: Float[np.ndarray, " q"]
    slopes: Float[np.ndarray, "q d"]

    @property
    def value(self) -> float:
        """ln L relative to no object."""
        return float(self.each.sum())

    def at(self, theta: Float[np.ndarray, " p"]) -> "OpticsFit":
        """The same with other optics."""
        changed = theta, self.mirror, self.free, self.units, self.bands, self.variance
        return evaluated(*changed)


def parameter_units(semiangle: float, wavelength: float) -> Float[np.ndarray, " p"]:
    """Change of every parameter by one radian of phase at the aperture's rim, and a rotation."""
    orders = [int(name[1]) + 1 for name in NAMES]
    lengths = [wavelength / (2 * np.pi) * n / semiangle**n for n in orders]
    return np.array([*lengths, ROTATION_UNIT])


def evaluated(
    theta: Float[np.ndarray, " p"],
    mirror: Float[np.ndarray, "2 2"],
    free: Free,
    units: Float[np.ndarray, " p"],
    bands: Sidebands | AliasedSidebands,
    variance: Float[np.ndarray, " ring"] | Spectra | None = None,
) -> OpticsFit:
    """Fit at given optics; `variance` is that which they leave if None."""
    together = isinstance(bands, AliasedSidebands)
    measure: Any = likely_spectra if together else ring_variance
    likelihood: Any = aliased_evidence_and_scores if together else evidence_and_scores
    theta = np.asarray(theta, float)
    # of all parameters, in one compiled program, where further derivatives cost nothing
    derived = np.ones_like(free) if together else free
    if variance is None:
        variance = measure(theta, mirror, bands)
    assert variance is not None
    each, slopes = likelihood(theta, np.diag(units)[derived], mirror, bands, variance)
    return OpticsFit(theta, mirror, free, units, bands, variance, each, slopes[:, free[derived]])


def maximised(fit: OpticsFit, steps: int = MOST_STEPS) -> OpticsFit:
    """Fit at the maximum of ln L near `fit`, by quasi-Newton steps (Broyden and others 1970).

    The first one is that of scoring, with the scatter of the scores for the curvature.
    """
    directions = np.diag(fit.units)[fit.free]
    values, vectors = np.linalg.eigh(fit.slopes.T @ fit.slopes)
    stiffness = np.maximum(values, RIGID * values.max() + 1e-12)
    lengths = np.minimum(1 / np.sqrt(stiffness), LONGEST_STEP)
    axes = lengths[:, None] * vectors.T
    moves = axes @ directions
    tried = {}

    def _negative(x):
        new = fit.at(fit.theta + x @ moves)
        tried[x.tobytes()] = new
        return -new.value, -axes @ new.slopes.sum(0)

    options = {"gtol": SETTLED, "maxiter": steps}
    start = np.zeros(len(moves))
    minimize(_negative, start, jac=True, method="BFGS", options=options)
    return max(tried.values(), key=lambda new: new.value)


def curvature(fit: OpticsFit) -> Float[np.ndarray, "d d"]:
    """Negative second derivatives of ln L by the free parameters in their units."""
    directions = np.diag(fit.units)[fit.free]
    here = fit.slopes.sum(0)
    rows = [
        (here - fit.at(fit.theta + DIFFERENCE * move).slopes.sum(0)) / DIFFERENCE
        for move in directions
    ]
    matrix = np.array(rows)
    return (matrix + matrix.T) / 2


def covariance(fit: OpticsFit) -> Float[np.ndarray, "d d"]:
    """Covariance of the free parameters [Å, rad], H⁻¹VH⁻¹ with the scatter V of the scores.

    Scores of single frequencies show by their scatter what counting noise and the edges of the scan
    contribute (Huber 1967). What a weak object misses of thick and strong ones is much the same at
    neighbouring frequencies: V adds up the sums over rings and over sectors of Q (two-way clusters;
    Cameron, Gelbach & Miller 2011).
    """
    values, vectors = np.linalg.eigh(curvature(fit))
    inverse = vectors / np.maximum(values, 1e-6 * max(float(values.max()), 1e-12)) @ vectors.T
    unit = fit.units[fit.free]
    return inverse @ score_scatter(fit) @ inverse * unit * unit[:, None]


def score_scatter(fit: OpticsFit) -> Float[np.ndarray, "d d"]:
    """Covariance of the sum of the scores, no less than that of independent frequencies."""
    single = fit.slopes.T @ fit.slopes
    y, x = np.asarray(fit.bands.q, float).T
    sector = np.floor(np.arctan2(y, x) % np.pi / np.pi * SECTORS).astype(int) % SECTORS
    total = -single
    for cluster, count in ((np.asarray(fit.bands.ring), RINGS), (sector, SECTORS)):
        sums = np.zeros((count, fit.slopes.shape[1]))
        np.add.at(sums, cluster, fit.slopes)
        total = total + sums.T @ sums * count / (count - 1)
    ratio, axes = scipy.linalg.eigh(total, single + 1e-9 * np.trace(single) * np.eye(len(single)))
    back = np.linalg.inv(axes)
    return back.T * np.maximum(ratio, 1.0) @ back


def conjugate(fit: OpticsFit) -> OpticsFit:
    """The other optics with the same images: −θ, and the scan rotated by 180°."""
    theta = np.append(-fit.theta[:-1], fit.theta[-1] + np.pi)
    signs = np.where(np.arange(len(theta)) < len(theta) - 1, -1.0, 1.0)[fit.free]
    return replace(fit, theta=theta, slopes=fit.slopes * signs)


def excludes(first: OpticsFit, second: OpticsFit, deviations: float) -> bool:
    """True if the images exclude `second`, as `first` is more likely by more than `deviations`.

    By the difference of ln L over its standard deviation (Vuong, Econometrica 57, 307 (1989)),
    unless most frequencies contradict (sign test; Clarke, Political Analysis 15, 347 (2007)): few
    strong reflections of a crystal decide the sum, and one of them may be explained wrongly.
    """
    used = np.asarray(first.bands.used) > 0
    difference = (first.each - second.each)[used]
    scatter = np.sqrt(used.sum()) * difference.std()
    majority = np.sign(difference).sum() / np.sqrt(used.sum())
    return bool(difference.sum() > deviations * max(scatter, 1e-12) and majority > -CONTRADICTED)
