"""Maximum of the likelihood of the optics, its curvature, and the errors from both."""

from dataclasses import dataclass, replace

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from .sidebands import Sidebands
from .weak_object_likelihood import NAMES, evidence_and_scores, ring_variance

ROTATION_UNIT = 0.1  # rad
DIFFERENCE = 0.02  # units, for second derivatives
LONGEST_STEP = 1.0  # units
SETTLED = 0.01  # gain in ln L of the last step
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
    bands: Sidebands
    variance: Float[np.ndarray, " ring"]
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
    bands: Sidebands,
    variance: Float[np.ndarray, " ring"] | None = None,
) -> OpticsFit:
    """Fit at given optics; `variance` is that which they leave if None."""
    directions = np.diag(units)[free]
    here, along, before = (jnp.asarray(a, jnp.float32) for a in (theta, directions, mirror))
    if variance is None:
        variance = np.asarray(ring_variance(here, before, bands))
    each, slopes = evidence_and_scores(here, along, before, bands, jnp.asarray(variance))
    of_q = np.asarray(each, float), np.asarray(slopes, float)
    return OpticsFit(np.asarray(theta, float), mirror, free, units, bands, variance, *of_q)


def maximised(fit: OpticsFit, steps: int = 5) -> OpticsFit:
    """Fit after Newton steps, whose length is limited while ln L is not convex."""
    directions = np.diag(fit.units)[fit.free]
    for _ in range(steps):
        gradient = fit.slopes.sum(0)
        values, vectors = np.linalg.eigh(curvature(fit))
        stiffness = np.maximum(np.abs(values), RIGID * np.abs(values).max() + 1e-12)
        damping, better = 0.0, None
        for _ in range(6):
            step = vectors @ ((vectors.T @ gradient) / (stiffness + damping))
            step *= min(1.0, LONGEST_STEP / max(float(np.abs(step).max()), 1e-12))
            new = fit.at(fit.theta + step @ directions)
            if new.value >= fit.value:
                better = new
                break
            damping = max(8 * damping, 0.1 * float(stiffness.min()))
        if better is None:
            return fit
        gain = better.value - fit.value
        fit = better
        if gain < SETTLED:
            return fit
    return fit


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
    """Covariance of the free parameters [Å, rad], H⁻¹(Σ_Q s sᵀ)H⁻¹ (Huber 1967).

    Scores s of single frequencies show by their scatter what counting noise, the specimen beyond a
    weak object, and the edges of the scan contribute.
    """
    values, vectors = np.linalg.eigh(curvature(fit))
    inverse = vectors / np.maximum(values, 1e-6 * max(float(values.max()), 1e-12)) @ vectors.T
    scatter = fit.slopes.T @ fit.slopes
    unit = fit.units[fit.free]
    return inverse @ scatter @ inverse * unit * unit[:, None]


def conjugate(fit: OpticsFit) -> OpticsFit:
    """The other optics with the same images: −θ, and the scan rotated by 180°."""
    theta = np.append(-fit.theta[:-1], fit.theta[-1] + np.pi)
    signs = np.where(np.arange(len(theta)) < len(theta) - 1, -1.0, 1.0)[fit.free]
    return replace(fit, theta=theta, slopes=fit.slopes * signs)


def significance(first: OpticsFit, second: OpticsFit) -> float:
    """Difference of two ln L of the same images over its standard deviation (Vuong 1989)."""
    difference = first.each - second.each
    used = np.asarray(first.bands.used) > 0
    scatter = np.sqrt(used.sum()) * difference[used].std()
    return float(difference.sum() / max(scatter, 1e-12))
