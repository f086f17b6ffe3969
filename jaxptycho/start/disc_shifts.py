"""Movement of the bright-field disc over the scan: its shift in each tile, and a robust plane.

The shift of a tile is found from the rim alone: levels and gradients of the intensity inside and
outside, which the specimen changes from tile to tile, are fitted with it.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from .disc import (
    MODEL_ERRORS,
    PRIOR_INSIDE,
    PRIOR_OUTSIDE,
    Disc,
    fit_disc,
    levels_of,
    rim_at,
    ring_of,
    shape_of,
)
from .rim import Circle

FEWEST_TILES = 9  # that a plane is fitted to
GRADIENTS = 3  # terms of a level that differ from tile to tile: mean, y, x
ROUNDS = 3  # of shape and shifts
SCORINGS = 2
REWEIGHTINGS = 10
TUKEY = 4.7  # standard deviations, beyond which a tile does not count


@dataclass(frozen=True)
class DiscShifts:
    """Shift of the disc over the scan, from its centre at the middle of the scan [pixels].

    The plane is `slopes` @ (place − ½ in a scan of unit extent): `slopes[i, j]` is the movement of
    coordinate i of the disc across the scan along j. NaN where the scan has too few patterns.
    """

    places: Float[np.ndarray, "tile 2"]  # of the tiles, −½ … ½ of the scan's extent
    tiles: Float[np.ndarray, "tile 2"]
    tile_errors: Float[np.ndarray, "tile 2"]
    slopes: Float[np.ndarray, "2 2"]
    errors: Float[np.ndarray, "2 2"]
    bounds: Float[np.ndarray, "2 2"]  # Cramér–Rao
    centre_errors: Float[np.ndarray, "2"]  # of the plane at the middle of the scan

    def at(self, places: Float[np.ndarray, "shot 2"]) -> Float[np.ndarray, "shot 2"]:
        """Shift of the plane at places −½ … ½ of the scan, zero where it is unknown."""
        return places @ np.nan_to_num(self.slopes).T


def scan_places(positions: Float[np.ndarray, "shot 2"]) -> Float[np.ndarray, "shot 2"]:
    """Positions in units of the scan's extent, −½ … ½."""
    low, high = positions.min(0), positions.max(0)
    return (positions - (low + high) / 2) / np.maximum(high - low, 1e-9)


def fit_moving_disc(
    sums: Float[np.ndarray, "tile y x"],
    mask: Bool[np.ndarray, "y x"] | None,
    start: Circle | Disc,
    places: Float[np.ndarray, "tile 2"],
    per_quantum: float,
) -> tuple[Disc, DiscShifts] | None:
    """Disc of a scan and its shifts, from the sums over tiles centred at `places`; or None."""
    total = sums.sum(0)
    disc = fit_disc(total, mask, per_quantum, start)
    if disc is None:
        return None
    shifts = _at_rest(places, disc)
    if len(sums) < FEWEST_TILES:
        return disc, shifts
    for _ in range(ROUNDS):
        shifts = _shifts(sums, mask, disc, shifts, per_quantum)
        disc = fit_disc(total, mask, per_quantum, disc, shifts.at(places))
        if disc is None:
            return None
    return disc, _shifts(sums, mask, disc, shifts, per_quantum)


def _at_rest(places: np.ndarray, disc: Disc) -> DiscShifts:
    unknown = np.full((len(places), 2), np.nan)
    none = np.full((2, 2), np.nan)
    return DiscShifts(places, unknown, unknown, none, none, none, disc.errors[:2])


def _shifts(sums, mask, disc: Disc, before: DiscShifts, per_quantum: float) -> DiscShifts:
    """Shifts of all tiles by scoring, about those of the plane `before`, and their new plane."""
    tiles = before.at(before.places)
    errors = np.ones_like(tiles)
    for _ in range(SCORINGS):
        step, errors = _tile_steps(sums, mask, disc, tiles, per_quantum)
        tiles = tiles + np.clip(step, -1.0, 1.0)
    return plane_of_tiles(before.places, tiles, errors)


def _tile_steps(sums, mask, disc: Disc, shifts, per_quantum: float):
    """Scoring step of the shift of each tile, and the standard errors that counting permits."""
    shape = shape_of(disc)
    ring = ring_of(sums.sum(0), mask, shape)
    assert ring is not None  # the disc was fitted to it
    counts = sums[:, ring.index]
    f, slopes = rim_at(ring, shape, shifts)
    inside, outside = levels_of(ring, np.concatenate([shape, disc.levels]))
    brightness, darkness = (
        _relative(counts[:, side]) for side in (ring.radial < 0, ring.radial > 0)
    )
    inside, outside = brightness * inside, darkness * outside
    mean = inside * f + outside * (1 - f)
    gradients = ring.terms[:, :GRADIENTS]
    columns = [(inside - outside)[..., None] * slopes[..., :2]]
    columns += [(level[..., None] * gradients) for level in (inside * f, outside * (1 - f))]
    columns = np.concatenate(columns, -1)
    variance = np.maximum(mean, 1e-3 * mean.max()) * per_quantum
    weighted = columns / variance[..., None]
    spread = [np.inf, np.inf, np.inf, PRIOR_INSIDE, PRIOR_INSIDE, PRIOR_OUTSIDE]
    spread = np.array(spread + [PRIOR_OUTSIDE] * (GRADIENTS - 1))
    information = np.swapaxes(weighted, 1, 2) @ columns + np.diag(spread**-2.0)
    score = np.einsum("tna,tn->ta", weighted, counts - mean)
    step = np.linalg.solve(information, score[..., None])[..., 0]
    variances = np.diagonal(np.linalg.inv(information), axis1=1, axis2=2)
    return step[:, :2], np.sqrt(variances[:, :2])


def _relative(counts: Float[np.ndarray, "tile n"]) -> Float[np.ndarray, "tile 1"]:
    """Share of every tile in the sum of all tiles."""
    total = counts.sum()
    return counts.sum(1, keepdims=True) / total if total > 0 else np.zeros((len(counts), 1))


def plane_of_tiles(
    places: Float[np.ndarray, "tile 2"],
    tiles: Float[np.ndarray, "tile 2"],
    errors: Float[np.ndarray, "tile 2"],
) -> DiscShifts:
    """Robust plane through the shifts (y, x) of tiles, in the order of `tiles_of`."""
    design = np.c_[np.ones(len(places)), places]
    y, x = (_fit_of_strips(design, tiles[:, axis], errors[:, axis]) for axis in (0, 1))
    return DiscShifts(
        places,
        np.stack([tiles[:, axis] - one.found[0] for axis, one in enumerate((y, x))], -1),
        np.stack([y.scatter, x.scatter], -1),
        np.stack([y.found[1:], x.found[1:]]),
        np.hypot(np.stack([y.errors[1:], x.errors[1:]]), MODEL_ERRORS[0]),
        np.stack([y.bounds[1:], x.bounds[1:]]),
        np.array([y.errors[0], x.errors[0]]),
    )


class _Fitted(NamedTuple):
    found: Float[np.ndarray, "3"]
    errors: Float[np.ndarray, "3"]
    bounds: Float[np.ndarray, "3"]
    scatter: Float[np.ndarray, " tile"]  # standard deviation of every value


def _fit_of_strips(design, values, errors) -> _Fitted:
    """Robust fit with errors that allow for particles which deflect the disc in several tiles.

    By leaving out strips of the scan along either axis (jackknife in two-way clusters; Cameron,
    Gelbach & Miller 2011). Neighbouring tiles show one particle, and no independent errors.
    """
    fitted = _robust_fit(design, values, errors)
    side = math.isqrt(len(values))
    index = np.arange(len(values))
    variance = -(fitted.errors**2)
    for strip in (index // side, index % side):
        kept = [strip != i for i in range(side)]
        found = [_robust_fit(design[k], values[k], errors[k]).found for k in kept]
        variance = variance + (side - 1) * np.var(found, 0)
    return fitted._replace(errors=np.sqrt(np.maximum(variance, fitted.errors**2)))


def _robust_fit(design, values, errors) -> _Fitted:
    """Least squares with Tukey weights; variances from `errors` and from a common scatter."""
    n, unknowns = design.shape
    counting = errors**2
    bounds = np.sqrt(np.diag(np.linalg.inv((design / counting[:, None]).T @ design)))
    variance, weights = counting, 1 / counting
    for _ in range(REWEIGHTINGS):
        weighted = design * weights[:, None]
        found = np.linalg.solve(weighted.T @ design, weighted.T @ values)
        residual = values - design @ found
        scatter = (1.4826 * np.median(np.abs(residual))) ** 2 * n / (n - unknowns)
        variance = counting + max(0.0, scatter - float(np.median(counting)))
        ratio = residual / (TUKEY * np.sqrt(variance))
        weights = np.where(np.abs(ratio) < 1, (1 - ratio**2) ** 2, 0.0) / variance
    used = weights * variance
    spread = (weights * residual**2).sum() / max(used.sum() - unknowns, 1.0)
    covariance = np.linalg.inv((design * weights[:, None]).T @ design) * max(1.0, spread)
    return _Fitted(found, np.sqrt(np.diag(covariance)), bounds, np.sqrt(variance))
