"""The bright-field disc of a pattern by maximum likelihood.

Expected counts I(k) = B(k)·f + D(k)·(1 − f), f = 1/(1 + exp((ρ − R(φ))/w)), ρ and φ from the
centre of the disc, R(φ) = R(1 + e₁cos 2φ + e₂sin 2φ). B and D, the levels inside and outside of
the rim, are smooth: polynomials with weak priors, so that few electrons determine few of their
terms. Fisher scoring with Poisson weights; errors from the scatter of the scores between sectors
of the rim and parts of the scan (a sandwich estimator), as contrast of the specimen and events
that spread over neighbouring pixels are no independent noise.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import expit

from .rim import Circle, first_circle

SHAPE = 6  # parameters of the rim: centre y, x, radius, e₁, e₂, log w
TERMS = 7  # of each level
SECTORS = 32
EDGES = (0.15, 0.5)  # smallest w [pixels], largest w [radii]
FIRST_EDGE = 0.5  # pixels
PRIORS = (np.inf, np.inf, np.inf, 0.1, 0.1, 1.5)  # standard deviations of the shape
PRIOR_INSIDE = 0.3  # of the terms of a level, relative to it
PRIOR_OUTSIDE = 1.0
# standard errors that no number of electrons removes: the levels and the edge are no exact model
MODEL_ERRORS = (0.01, 0.01, 0.02, 0.0005, 0.0005, 0.02)
HUBER = 3.0  # standard deviations, beyond which a pixel weighs less
BAND = (0.45, 4.0, 12.0)  # half width of the fitted ring: radii, but within these pixels
ITERATIONS = 40
STILL = 0.1  # pixels, of a movement that blurs no rim
AT_REST = np.zeros((1, 2))
CONVERGED = 0.05  # standard errors, of the last step
LEAST_ARC = 0.3  # fraction of the rim in view that a fit needs
LEAST_RADIUS = 2.0  # pixels
LARGEST_RADIUS = 0.5  # of the shorter side
LEAST_CONTRAST = 2.0  # level inside over that outside
LARGEST_EDGE = 0.22  # of the radius
LEAST_SIGNIFICANCE = 8.0  # radius over its error
FEWEST_QUANTA = 150  # around the rim


@dataclass(frozen=True)
class Disc:
    """Rim of a bright-field disc; lengths in pixels, the centre (y, x) from the pattern's middle.

    `covariance` and `bounds` are those of (y, x, radius, e₁, e₂, log w): the estimated covariance,
    and the smallest standard errors that counting noise permits (Cramér–Rao).
    """

    centre: tuple[float, float]
    radius: float
    ellipse: tuple[float, float]  # e₁, e₂
    edge: float  # w
    inside: float  # mean counts per pixel at the rim
    outside: float
    arc: float  # fraction of the rim in view
    covariance: Float[np.ndarray, "6 6"]
    bounds: Float[np.ndarray, "6"]
    levels: Float[np.ndarray, " 14"]  # coefficients of B and of D

    @property
    def errors(self) -> Float[np.ndarray, "6"]:
        """Standard errors of (y, x, radius, e₁, e₂, log w)."""
        return np.sqrt(np.diag(self.covariance))

    @property
    def ellipticity(self) -> float:
        """Relative difference of the half axes from the mean radius, e = √(e₁² + e₂²)."""
        return float(np.hypot(*self.ellipse))

    def distance(self, shape: tuple[int, int]) -> Float[np.ndarray, "y x"]:
        """Distance ρ − R(φ) of every pixel from the rim, negative inside [pixels]."""
        y, x = np.meshgrid(*(np.arange(n) - n // 2 for n in shape), indexing="ij")
        rho, _, angle = _polar(y - self.centre[0], x - self.centre[1])
        return rho - self.radius * (1 + angle @ np.array(self.ellipse))

    def pattern(self, shape: tuple[int, int]) -> Float[np.ndarray, "y x"]:
        """Expected counts with the levels at the rim continued everywhere."""
        f = expit(-self.distance(shape) / self.edge)
        return self.outside + (self.inside - self.outside) * f


@dataclass(frozen=True)
class Ring:
    """Pixels around the rim of a disc, and the shifts that it had while they were exposed."""

    y: Float[np.ndarray, " n"]  # from the middle of the pattern
    x: Float[np.ndarray, " n"]
    counts: Float[np.ndarray, " n"]
    terms: Float[np.ndarray, "n term"]  # of the levels
    radial: Float[np.ndarray, " n"]  # distance from the first rim, −1 … 1 over the ring
    sector: Int[np.ndarray, " n"]
    index: Bool[np.ndarray, "v u"]  # these pixels in the pattern


def fit_disc(
    pattern: Float[np.ndarray, "y x"],
    mask: Bool[np.ndarray, "y x"] | None = None,
    per_quantum: float = 1.0,
    start: "Circle | Disc | None" = None,
    shifts: Float[np.ndarray, "k 2"] = AT_REST,
) -> Disc | None:
    """Disc of a pattern, zero frequency in the middle; None where there is none.

    `per_quantum` are the counts of an electron, `start` is a first guess. `shifts` (y, x) [pixels]
    are those that the disc had, for equal times, while the pattern was summed.
    """
    start = first_circle(pattern, mask, per_quantum) if start is None else start
    if start is None:
        return None
    first = shape_of(start)
    if not LEAST_RADIUS <= first[2] <= LARGEST_RADIUS * min(pattern.shape):
        return None
    ring = ring_of(pattern, mask, first)
    if ring is None:
        return None
    if np.ptp(shifts, axis=0).max() < STILL:
        shifts = shifts.mean(0, keepdims=True)
    return _disc(ring, shifts, _scored(ring, shifts, first, per_quantum), per_quantum)


def rim_of(
    pattern: Float[np.ndarray, "y x"],
    mask: Bool[np.ndarray, "y x"] | None = None,
    per_quantum: float = 1.0,
) -> Disc | Circle | None:
    """Disc of a pattern; a circle through its half height where the fit finds no disc."""
    start = first_circle(pattern, mask, per_quantum)
    if start is None:
        return None
    return fit_disc(pattern, mask, per_quantum, start) or start


def shape_of(disc: Circle | Disc) -> Float[np.ndarray, "6"]:
    """Parameters (y, x, radius, e₁, e₂, log w) of a rim."""
    rest = [0.0, 0.0, np.log(FIRST_EDGE)]
    if isinstance(disc, Disc):
        rest = [*disc.ellipse, np.log(disc.edge)]
    return np.array([*disc.centre, disc.radius, *rest])


def ring_of(
    pattern: Float[np.ndarray, "y x"],
    mask: Bool[np.ndarray, "y x"] | None,
    shape: Float[np.ndarray, "6"],
) -> Ring | None:
    """Pixels around the rim of a disc; None where too little of it is in view."""
    y, x = np.meshgrid(*(np.arange(n) - n // 2 for n in pattern.shape), indexing="ij")
    from_rim = np.hypot(y - shape[0], x - shape[1]) - shape[2]
    half = float(np.clip(BAND[0] * shape[2], BAND[1], BAND[2])) + 3 * np.exp(shape[5])
    kept = np.abs(from_rim) < half
    if mask is not None:
        kept &= mask
    y, x, from_rim = y[kept].astype(float), x[kept].astype(float), from_rim[kept]
    dy, dx = (y - shape[0]) / shape[2], (x - shape[1]) / shape[2]
    sector = ((np.arctan2(dy, dx) / (2 * np.pi) + 0.5) * SECTORS).astype(int) % SECTORS
    sides = [np.unique(sector[np.abs(from_rim - side) < 2]) for side in (-2, 2)]
    if min(map(len, sides)) < LEAST_ARC * SECTORS:
        return None
    q = from_rim / half
    terms = np.stack([np.ones_like(q), dy, dx, dy**2 - dx**2, 2 * dy * dx, q, q**2], -1)
    return Ring(y, x, pattern[kept], terms, q, sector, kept)


def rim_at(
    ring: Ring, shape: Float[np.ndarray, "6"], shifts: Float[np.ndarray, "k 2"]
) -> tuple[Float[np.ndarray, "k n"], Float[np.ndarray, "k n 6"]]:
    """f of the pixels of a ring for each shift of the disc, and its derivatives by `shape`."""
    cy, cx, radius, e1, e2, log_edge = shape
    edge = np.exp(log_edge)
    rho, unit, angle = _polar(ring.y - cy - shifts[:, :1], ring.x - cx - shifts[:, 1:])
    stretch = 1 + angle @ np.array([e1, e2])
    u = (radius * stretch - rho) / edge
    f = expit(u)
    turn = 2 * radius * (angle @ np.array([e2, -e1])) / rho
    tangent = np.stack([unit[..., 1], -unit[..., 0]], -1)
    by_u = [
        (unit - turn[..., None] * tangent) / edge,
        (stretch / edge)[..., None],
        radius / edge * angle,
        -u[..., None],
    ]
    return f, (f * (1 - f))[..., None] * np.concatenate(by_u, -1)


def levels_of(
    ring: Ring, parameters: Float[np.ndarray, " parameter"]
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Levels inside and outside of the rim at the pixels of a ring."""
    inside, outside = np.split(parameters[SHAPE:], 2)
    return ring.terms @ inside, ring.terms @ outside


def _polar(dy: np.ndarray, dx: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distance, unit vector, and (cos 2φ, sin 2φ) of displacements."""
    rho = np.maximum(np.hypot(dy, dx), 1e-9)
    uy, ux = dy / rho, dx / rho
    return rho, np.stack([uy, ux], -1), np.stack([ux**2 - uy**2, 2 * ux * uy], -1)


def _expected(ring: Ring, shifts: np.ndarray, parameters: np.ndarray):
    """Expected counts of the pixels of a ring [n], and their derivatives [n, parameter]."""
    f, slopes = (v.mean(0) for v in rim_at(ring, parameters[:SHAPE], shifts))
    inside, outside = levels_of(ring, parameters)
    parts = [(inside - outside)[:, None] * slopes, f[:, None] * ring.terms]
    parts += [(1 - f)[:, None] * ring.terms]
    return inside * f + outside * (1 - f), np.concatenate(parts, -1)


class _Fit(NamedTuple):
    parameters: Float[np.ndarray, " parameter"]
    information: Float[np.ndarray, "parameter parameter"]
    weights: Float[np.ndarray, " n"]


def _scored(ring: Ring, shifts, first: Float[np.ndarray, "6"], per_quantum: float) -> _Fit:
    """Most likely parameters, by Fisher scoring from `first`."""
    inside, outside = (
        float(ring.counts[side].mean()) if side.any() else 0.0
        for side in (ring.radial < -0.2, ring.radial > 0.2)
    )
    parameters = np.concatenate([first, [inside], np.zeros(6), [outside], np.zeros(6)])
    prior, precision = _prior(parameters)
    floor = max(1e-3 * inside, 0.05 * per_quantum)
    factor = per_quantum
    for _ in range(ITERATIONS):
        mean, columns = _expected(ring, shifts, parameters)
        variance = np.maximum(mean, floor)
        residual = ring.counts - mean
        pearson = np.abs(residual) / np.sqrt(variance)
        factor = max(float(np.mean(np.minimum(pearson**2, 9 * factor))), 1e-30)
        limit = HUBER * np.sqrt(factor)
        weights = limit / np.maximum(pearson, limit) / (variance * factor)
        weighted = columns * weights[:, None]
        information = weighted.T @ columns + np.diag(precision)
        score = weighted.T @ residual - precision * (parameters - prior)
        step = np.linalg.solve(information, score)
        edge = np.exp(parameters[5])
        most = np.array([*[max(0.7, edge)] * 3, 0.05, 0.05, 0.4])
        before = parameters
        parameters = parameters + step / max(1.0, float(np.max(np.abs(step[:SHAPE]) / most)))
        low = np.log(EDGES[0])
        parameters[5] = np.clip(parameters[5], low, max(np.log(EDGES[1] * parameters[2]), low))
        errors = np.sqrt(np.diag(np.linalg.inv(information)))[:SHAPE]
        if (np.abs(parameters - before)[:SHAPE] < CONVERGED * errors).all():
            break
    return _Fit(parameters, information, weights)


def _prior(first: Float[np.ndarray, " parameter"]) -> tuple[np.ndarray, np.ndarray]:
    """Means and precisions of the priors of all parameters."""
    inside = max(first[SHAPE], 1e-12)
    outside = max(first[SHAPE + TERMS], 1e-3 * inside)
    spread = [PRIORS, [np.inf], np.full(TERMS - 1, PRIOR_INSIDE * inside)]
    spread += [[np.inf], np.full(TERMS - 1, PRIOR_OUTSIDE * outside)]
    mean = first.copy()
    mean[3:SHAPE] = [0.0, 0.0, np.log(FIRST_EDGE)]
    return mean, np.concatenate(spread) ** -2.0


def _disc(ring: Ring, shifts, fit: _Fit, per_quantum: float) -> Disc | None:
    """Disc with its errors; None where what was fitted is no disc."""
    mean, columns = _expected(ring, shifts, fit.parameters)
    inverse = np.linalg.inv(fit.information)
    scores = columns * (fit.weights * (ring.counts - mean))[:, None]
    scatter = inverse @ _scatter(scores, ring.sector) @ inverse
    poisson = columns / np.sqrt(np.maximum(mean, 1e-3 * mean.max()) * per_quantum)[:, None]
    bounds = np.sqrt(np.diag(np.linalg.pinv(poisson.T @ poisson))[:SHAPE])
    y, x, radius, e1, e2, log_edge = map(float, fit.parameters[:SHAPE])
    disc = Disc(
        (y, x),
        radius,
        (e1, e2),
        float(np.exp(log_edge)),
        float(fit.parameters[SHAPE]),
        float(fit.parameters[SHAPE + TERMS]),
        len(np.unique(ring.sector[np.abs(ring.radial) < 0.5])) / SECTORS,
        _at_least(scatter, inverse)[:SHAPE, :SHAPE] + np.diag(MODEL_ERRORS) ** 2,
        bounds,
        fit.parameters[SHAPE:],
    )
    sound = (
        np.isfinite(fit.parameters).all()
        and disc.radius >= LEAST_RADIUS
        and disc.inside > LEAST_CONTRAST * max(disc.outside, 0.0)
        and disc.edge < LARGEST_EDGE * disc.radius
        and disc.radius > LEAST_SIGNIFICANCE * disc.errors[2]
        and ring.counts.sum() > FEWEST_QUANTA * per_quantum
    )
    return disc if sound else None


def _scatter(scores: Float[np.ndarray, "n p"], sector: np.ndarray) -> np.ndarray:
    """Covariance of the sum of scores, from the sums over sectors."""
    sums = np.zeros((SECTORS, scores.shape[1]))
    np.add.at(sums, sector, scores)
    used = len(np.unique(sector))
    return sums.T @ sums * used / max(used - SHAPE, 1)


def _at_least(covariance: np.ndarray, floor: np.ndarray) -> np.ndarray:
    """Covariance whose variances are raised to those of `floor`."""
    now = np.maximum(np.diag(covariance), 1e-300)
    scale = np.sqrt(np.maximum(now, np.diag(floor)) / now)
    return covariance * np.outer(scale, scale)
