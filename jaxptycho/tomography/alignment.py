"""Alignment of a tilt series: shifts and angles of the views from their projections.

From coarse voxels to fine ones, a non-negative volume and the geometry are refined alternately:
some accelerated gradient steps of the volume, then a Gauss–Newton step of each view on (θ, two
angles, two shifts). The effect of a shift on a view is left free in the steps of the volume
(variable projection, Golub & Pereyra, SIAM J. Numer. Anal. 10, 413 (1973)), as the volume would
otherwise take over the errors of the views. The gauge, a shift of the full specimen, is removed
whenever the volume is reset; the priors of the angles fix its rotation.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..inverse.least_squares import normal_equations, solve_damped
from ..physics.types import Numbers, Scalar, Stack
from .aligned import Aligned
from .coarse import coarse_shifts, film_shifts
from .gauge import without_translation
from .levels import Level, binned, common_field, rotate_images
from .linear import Free, basis_of, fista, project_out
from .outliers import held_out, unusable, worst_view
from .projections import (
    MIN_TILT_RANGE,
    Geometry,
    Images,
    Projector,
    linearised,
    require_series,
    three,
)

CORRELATED_PIXELS = 100  # pixels of correlated residuals, of atoms that a volume does not show yet
PRIOR = np.deg2rad(0.3)  # of each angle
DAMPING = 1e-3  # of the Gauss–Newton steps
HUBER = 1.345  # standard deviations from which a residual counts less (Huber 1981, 95 % efficiency)
MIN_VIEWS = 3  # views that fit one another
MIN_EXPLAINED = 0.2  # fraction of the variance of the views; a volume of pure noise explains 0.16
AXES = (90.0, 45.0, -45.0)  # degrees, directions that are tried
MAX_UNEXPLAINED_RATIO = 0.7  # unexplained variance with another axis over that with the given one
MIN_VALID_PIXELS = 25  # at the coarsest voxels, for a comparison of a view with the others
SETTLED = 0.02  # voxels, change below which the alignment has converged


# tilt, angles about x and z [rad], shift (y, x) [Å]
Parameters = Float[Array | np.ndarray, "view 5"]


class _Series(NamedTuple):
    """Projections with their weights, nominal geometry and voxels."""

    projections: Images
    weights: Images
    nominal: Parameters
    voxel: tuple[float, float, float]
    shape: tuple[int, int, int]


class _Options(NamedTuple):
    free: Free
    bins: tuple[int, ...]
    turns: int
    iterations: int
    angles: bool
    prior: float
    coarse: bool
    extended: bool


class _Trial(NamedTuple):
    """Alignment of some views, up to the level at which a view did not fit."""

    found: Parameters
    volume: Stack
    misfits: np.ndarray
    steps: list[float]
    held_out: np.ndarray
    worst: int | None


def align(
    projections: Images,
    geometry: Geometry,
    voxel: Numbers,
    volume_shape: tuple[int, int, int] | None = None,
    *,
    weights: Numbers | None = None,
    free: Free = "nothing",
    bins: Sequence[int] = (4, 2, 1),
    turns: int = 12,
    iterations: int = 20,
    angles: bool = True,
    prior: float = PRIOR,
    coarse: bool = True,
    extended: bool = False,
) -> Aligned:
    """Align a tilt series: its geometry and volume, from projections [view, y, x] [V·Å or rad].

    `geometry` holds the nominal tilts, and known shifts and angles; `coarse` finds shifts by
    correlation first. `weights` are 1/variance of pixels or views, up to a factor, 0 where a
    projection is not valid. `free` of each view is nothing, a constant, or a plane. An `extended`
    specimen continues beyond the field, as a film does: first shifts come from the overlap of
    neighbours (`film_shifts`), then the common field alone counts. Voxels are binned by each of
    `bins` for `turns` rounds, of `iterations` of the volume each; angles are refined from the
    second level on, within `prior` [rad] of the nominal ones. A view that is empty, or that the
    others do not explain, is named in `causes`, keeps its nominal pose, and does not contribute to
    the rest. Raises ValueError for projections that do not belong to `geometry`, for a volume
    smaller than their field, and if fewer than three views fit one another.
    """
    projections = np.asarray(projections)
    voxel = three(voxel)
    shape = volume_shape or (projections.shape[2], *projections.shape[1:])
    filled = np.where(np.isfinite(projections), projections, 0)
    require_series(filled, voxel, geometry, shape)
    weights = _weights(weights, projections)
    if not len(bins):
        raise ValueError(
            "no bins came; give the numbers of voxels to bin, coarse to fine, as (4, 2, 1)"
        )
    if turns < 1 or iterations < 1:
        raise ValueError(
            f"{turns} turns of {iterations} iterations align nothing; give at least one of each"
        )
    options = _Options(free, tuple(bins), turns, iterations, angles, prior, coarse, extended)
    series = _Series(filled, weights, _parameters(geometry), voxel, shape)
    trial, causes = _without_outliers(series, options, unusable(projections, weights))
    judged = (weights > 0).sum((1, 2)) >= MIN_VALID_PIXELS * bins[0] ** 2
    judged[list(causes)] = False
    fitting = trial.held_out[judged]
    axis = None
    if len(fitting) > MIN_VIEWS:
        axis = _better_axis(series, options, _kept(series, causes), float(np.median(fitting)))
    if axis is None and len(fitting) > MIN_VIEWS and np.median(fitting) < MIN_EXPLAINED:
        raise ValueError(
            f"the volume explains {np.median(fitting):.0%} of the variance of a view that was "
            "left out of it (median): the views do not show one specimen rotated about one axis; "
            "check, in this order, the direction of the tilt axis (data.tilt_axis_deg), the "
            "origin of the positions (data.origin), the unit of the tilts (degrees in files, "
            "radians in arrays), and whether the specimen changed"
        )
    return Aligned(
        _geometry(trial.found),
        trial.volume,
        trial.misfits,
        sorted(causes),
        np.array(trial.steps),
        causes,
        trial.held_out,
        axis,
    )


def _without_outliers(
    series: _Series, options: _Options, causes: dict[int, str]
) -> tuple[_Trial, dict[int, str]]:
    """Alignment of the views that fit one another, and the reasons why others are left out.

    The worst view is left out first and the rest aligned again, as it disturbs the others;
    therefore each view that was left out before the last is tried again at the end.
    """
    outliers: list[int] = []
    while True:
        every = causes | dict.fromkeys(outliers, "the other views do not explain it")
        trial = _aligned(series, options, _kept(series, every))
        if trial.worst is None:
            break
        outliers.append(trial.worst)
    for view in outliers[:-1]:
        fewer = {other: cause for other, cause in every.items() if other != view}
        again = _aligned(series, options, _kept(series, fewer))
        if again.worst is None:
            trial = again
            every = fewer
    return trial, every


def _kept(series: _Series, causes: dict[int, str]) -> np.ndarray:
    """Mask of the views that are used. Raises ValueError if too few of them remain."""
    kept = ~np.isin(np.arange(len(series.nominal)), list(causes))
    left = series.nominal[kept, 0]
    if causes and (len(left) < MIN_VIEWS or np.ptp(left) < MIN_TILT_RANGE):
        few = "; ".join(f"view {view}: {cause}" for view, cause in sorted(causes.items())[:4])
        more = f"; and {len(causes) - 4} more" if len(causes) > 4 else ""
        raise ValueError(
            f"{len(left)} of {len(kept)} views can be aligned, at least {MIN_VIEWS} of different "
            f"tilts are required ({few}{more}); check the projections and their weights"
        )
    return kept


def _aligned(series: _Series, options: _Options, kept) -> _Trial:
    """Alignment of the `kept` views, at ever finer voxels until one of them does not fit."""
    projections = series.projections
    nominal = series.nominal.copy()
    voxel = series.voxel
    weights = series.weights * kept[:, None, None]
    if options.coarse:
        first = projections[kept], weights[kept] > 0, nominal[kept, 0], voxel[1:]
        nominal[kept, 3:] += _first_shifts(*first, options.extended)
    field = np.ones(projections.shape)
    if options.extended:
        height, width = projections.shape[1:]
        field = common_field((height, width), nominal[:, 0], nominal[:, 4] / voxel[2])
    found = nominal.copy()
    steps = []
    held = np.zeros(len(kept))
    worst = None
    for number, size in enumerate(options.bins):
        every = binned(projections, series.weights * field, voxel, series.shape, size)
        level = every._replace(weights=every.weights * kept[:, None, None])
        refined = options.angles and (number > 0 or len(options.bins) == 1)
        found, volume, moved = _refined(level, found, nominal, kept, options, refined)
        steps += moved
        projector = _projector(level, found)
        misfits = _misfits(projector, volume, every, options.free)
        judged = projector, level.measured, level.weights, level.volume_shape
        held = held_out(*judged) if number == 0 else held
        worst = worst_view(*judged, misfits, held if number == 0 else None)
        if worst is not None:
            break
    return _Trial(found, volume, misfits, steps, held, worst)


def _better_axis(series: _Series, options: _Options, kept, explained: float) -> float | None:
    """Direction of the tilt axis [degrees from y] of `AXES` that explains the views much better.

    Compared at the coarsest voxels; None without one.
    """
    coarse = options._replace(bins=options.bins[:1], angles=False)
    found = {}
    for axis in AXES:
        images, weights = rotate_images(
            series.projections, series.weights, series.voxel[1:], np.deg2rad(axis)
        )
        weights = np.where(kept[:, None, None], weights, 0)
        if not np.any(weights, axis=(1, 2))[kept].all():
            continue
        turned = series._replace(projections=images, weights=weights)
        found[axis] = float(np.median(_aligned(turned, coarse, kept).held_out[kept]))
    best = max(found, key=lambda axis: found[axis], default=None)
    return (
        best
        if best is not None and 1 - found[best] < MAX_UNEXPLAINED_RATIO * (1 - explained)
        else None
    )


def _first_shifts(projections, seen, tilts, pixel, extended: bool):
    """Shifts [Å] by correlation."""
    if extended:
        return film_shifts(projections, seen, tilts, pixel)
    levels = [
        np.where(own, image - np.median(image[own]), 0)
        for image, own in zip(projections, seen, strict=True)
    ]
    return coarse_shifts(np.stack(levels), tilts, pixel)


def _refined(level: Level, found, nominal, kept, options: _Options, angles: bool):
    """Parameters, volume and largest moves after rounds of volume and `kept` views."""
    found = found.copy()
    moved = found - nominal
    moved[kept, 3:] = without_translation(moved[kept, 3:], nominal[kept, 0])
    found[kept] = (nominal + moved)[kept]
    volume = jnp.zeros(level.volume_shape, jnp.float32)
    moved = []
    fixed = basis_of(options.free, level.measured)
    jacobian = jnp.zeros((len(found), 5, *level.measured.shape[1:]), jnp.float32)
    for _ in range(options.turns):
        projector = _projector(level, found)
        basis = jnp.concatenate([fixed, jacobian[:, 3:]], 1)
        volume = fista(
            projector, level.measured, volume, options.iterations, weights=level.weights, free=basis
        ).volume
        images, jacobian = linearised(projector, volume)
        residual = np.asarray(project_out(level.measured - images, level.weights, fixed), float)
        slopes = np.asarray(jacobian, float) * (
            1 if angles else np.array([0, 0, 0, 1, 1])[:, None, None]
        )
        slopes = np.stack(
            [
                project_out(jnp.asarray(s, np.float32), level.weights, fixed)
                for s in slopes.swapaxes(0, 1)
            ],
            1,
        )
        change = newton_step(
            residual, slopes, np.asarray(level.weights, float), found - nominal, options.prior
        )
        change = _limited(change, level)
        found = found + change
        moved.append(float(np.abs(change * _lever(level)).max()))
        if moved[-1] < SETTLED * level.voxel[2]:
            break
    return found, volume, moved


def _projector(level: Level, found) -> Projector:
    """Projector on the pixels of a level, whose middle pixel differs from that of the finest."""
    y, x = level.measured.shape[1:]
    return Projector(
        _geometry(found - np.concatenate([np.zeros(3), level.offset])), level.voxel, (y, x)
    )


def _misfits(projector: Projector, volume: Stack, level: Level, free: Free) -> np.ndarray:
    """Weighted rms of measured − projected of every view."""
    weights = np.asarray(level.weights, float)
    images, _ = linearised(projector, volume)
    residual = np.asarray(
        project_out(level.measured - images, level.weights, basis_of(free, level.measured)), float
    )
    return np.sqrt((weights * residual**2).sum((1, 2)) / np.maximum(weights.sum((1, 2)), 1e-30))


def newton_step(
    residual: Float[Array | np.ndarray, "view y x"],
    slopes: Float[Array | np.ndarray, "view 5 y x"],
    weights: Float[Array | np.ndarray, "view y x"],
    away: Parameters,
    prior: Scalar,
) -> Parameters:
    """Change of the geometry of every view that reduces its residual, robustly (Huber).

    `away` is its distance from the nominal one, from which the angles deviate by `prior` [rad].
    """
    precision = np.array([1 / prior**2] * 3 + [0.0] * 2)
    changes = np.zeros(away.shape)
    for change, r, slope, w, a in zip(changes, residual, slopes, weights, away, strict=True):
        if not w.any():
            continue
        spread = 1.4826 * np.median(np.abs(np.sqrt(w) * r)[w > 0]) + 1e-30
        size = np.abs(np.sqrt(w) * r) / spread
        robust = w * np.minimum(1, HUBER / np.maximum(size, HUBER))
        variance = CORRELATED_PIXELS * np.sum(robust * r**2) / np.count_nonzero(w)
        normal, right = normal_equations(slope, r, robust / variance)
        free = np.diag(normal) > 0
        step = solve_damped(normal + np.diag(precision), right - precision * a, DAMPING)
        change[:] = step * free
    return changes


def _limited(change, level: Level):
    """Change limited to displacements of one voxel."""
    longest = level.voxel[2] / _lever(level)
    return np.clip(change, -longest, longest)


def _lever(level: Level):
    """Largest displacement [Å] per unit change of each parameter; for angles at the rim."""
    edge = max(n * p for n, p in zip(level.volume_shape, level.voxel, strict=True)) / 2
    return np.array([edge] * 3 + [1.0] * 2)


def _weights(weights, projections):
    weights = np.ones(len(projections)) if weights is None else np.asarray(weights, float)
    if weights.shape not in (projections.shape, projections.shape[:1]) or weights.min() < 0:
        raise ValueError(
            f"weights of shape {weights.shape}, at least {weights.min():.4g}, came with "
            f"projections of {projections.shape}; give numbers from zero up, one for each view or "
            "each pixel of each view"
        )
    return np.broadcast_to(
        weights.reshape(*weights.shape, *(1,) * (3 - weights.ndim)), projections.shape
    )


def _parameters(geometry: Geometry) -> Parameters:
    angles = np.zeros((len(geometry.tilts), 2)) if geometry.angles is None else geometry.angles
    return np.concatenate([np.asarray(geometry.tilts)[:, None], angles, geometry.shifts], 1).astype(
        float
    )


def _geometry(parameters: Parameters) -> Geometry:
    tilts, angles, shifts = (
        np.asarray(p, np.float32) for p in np.split(parameters, [1, 3], axis=1)
    )
    return Geometry(tilts[:, 0], angles if angles.any() else None, shifts)
