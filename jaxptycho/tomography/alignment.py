"""The shifts and angles of the views of a tilt series, from its projections.

From coarse voxels to fine ones, a volume nowhere negative and the geometry are refined in turn: some accelerated
gradient steps of the volume, then a Gauss–Newton step of each view on (θ, two angles, two shifts). What a shift would
do to a view is left free in the steps of the volume (variable projection, Golub & Pereyra, SIAM J. Numer. Anal. 10,
413 (1973)), or the volume would take over the errors of the views. The gauge, a shift of the whole specimen, is taken
out whenever the volume begins anew; the priors of the angles hold its rotation.
"""

from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import ArrayLike
from scipy.ndimage import gaussian_filter

from ..physics.types import Stack
from .coarse import coarse_shifts, film_shifts
from .linear import Free, basis_of, fista, without
from .projections import Geometry, Images, Projector, project_view, require_series, three

CORRELATED = 100  # pixels whose residuals go together, of atoms that a volume does not show yet
PRIOR = np.deg2rad(0.3)  # of each angle
DAMPING = 1e-3  # of the Gauss–Newton steps
HUBER = 1.345  # in standard deviations, where a residual begins to count less (Huber 1981, 95 % efficiency)
BLUR = 0.7  # voxels, of the measured projections: what a voxel cannot show must not be fitted
BAD = 3.0  # times the median misfit
STILL = 0.02  # voxels: the alignment has settled

Parameters = Float[np.ndarray, "view 5"]  # tilt, angles about x and z [rad], shift (y, x) [Å]


class Aligned(NamedTuple):
    """The geometry that was found, and how well each view fits."""

    geometry: Geometry
    volume: Stack
    misfits: np.ndarray  # [view], rms of measured − projected, at the finest voxels
    bad: list[int]  # views that do not fit the others
    steps: np.ndarray  # Å, the farthest that anything was moved in every turn

    def words(self) -> dict[str, str]:
        """What to tell of the views."""
        bad = ", ".join(map(str, self.bad)) or "none"
        return {"misfit of the views": f"median {np.median(self.misfits):.3g}", "views that do not fit": bad}


class Level(NamedTuple):
    """The projections on coarser pixels."""

    measured: Images
    weights: Images
    voxel: tuple[float, float, float]
    volume_shape: tuple[int, int, int]
    offset: np.ndarray  # Å (y, x), where the middle pixel lies


def align(
    projections: Images,
    geometry: Geometry,
    voxel,
    volume_shape: tuple[int, int, int] | None = None,
    *,
    weights=None,
    free: Free = "nothing",
    bins: Sequence[int] = (4, 2, 1),
    turns: int = 12,
    iterations: int = 20,
    angles: bool = True,
    prior: float = PRIOR,
    coarse: bool = True,
    drop: bool = False,
    extended: bool = False,
) -> Aligned:
    """The geometry of a tilt series and its volume, from projections [view, y, x] [V·Å or rad].

    `geometry` holds the nominal tilts, and what is known of shifts and angles; `coarse` finds shifts by correlation
    first. `weights` are 1/variance of pixels or views, up to a factor, 0 where a projection is not valid. `free` of
    each view is nothing, a constant, or a plane. An `extended` specimen goes on beyond the field, as a film does: first
    shifts come from what neighbours both show (`film_shifts`), then the common field alone counts. Voxels are `bins` as long in every `turns` turns, of `iterations` of
    the volume each; angles are refined from the second length on, within `prior` [rad] of the nominal ones. A view
    that does not fit is named in `bad`, and with `drop` left out at finer voxels. Raises ValueError for projections
    that are not those of `geometry`, and for a volume smaller than their field.
    """
    projections, voxel = np.asarray(projections), three(voxel)
    shape = volume_shape or (projections.shape[2], *projections.shape[1:])
    require_series(projections, voxel, geometry, shape)
    weights = _weights(weights, projections)
    nominal = _parameters(geometry)
    if coarse:
        seen = weights.any((1, 2))
        nominal[seen, 3:] += _first_shifts(projections[seen], weights[seen] > 0, nominal[seen, 0], voxel[1:], extended)
    if extended:
        across = nominal[:, 4] / voxel[2]
        weights = weights * common_field((projections.shape[1], projections.shape[2]), nominal[:, 0], across)
    found, steps, kept = nominal.copy(), [], np.ones(len(projections), bool)
    if not len(bins):
        raise ValueError("no bins came; give how many voxels are binned, from many to one, as (4, 2, 1)")
    if turns < 1 or iterations < 1:
        raise ValueError(f"{turns} turns of {iterations} iterations align nothing; give at least one of each")
    fits = kept
    for number, size in enumerate(bins):
        level = binned(projections, weights * kept[:, None, None], voxel, shape, size)
        refined = angles and (number > 0 or len(bins) == 1)
        found, volume, misfits, moved = _refined(level, found, nominal, free, turns, iterations, refined, prior)
        steps += moved
        fits = kept & (misfits <= BAD * np.median(misfits[kept]))
        kept = fits if drop else kept
    return Aligned(_geometry(found), volume, misfits, np.flatnonzero(~fits).tolist(), np.array(steps))


def _first_shifts(projections, seen, tilts, pixel, extended: bool):
    """Shifts [Å] by correlation."""
    if extended:
        return film_shifts(projections, seen, tilts, pixel)
    levels = [np.where(own, image - np.median(image[own]), 0) for image, own in zip(projections, seen, strict=True)]
    return coarse_shifts(np.stack(levels), tilts, pixel)


def common_field(shape: tuple[int, int], tilts, across: ArrayLike = 0.0) -> Float[np.ndarray, "view y x"]:
    """1 where every view sees what the untilted one does, |x| ≤ ½X cos θ about its shift `across` [pixels], and 0
    outside: weights of a film."""
    x = np.arange(shape[1]) - shape[1] // 2 - np.reshape(across, (-1, 1))
    inside = np.abs(x) <= shape[1] / 2 * np.cos(np.asarray(tilts))[:, None]
    return np.broadcast_to(inside[:, None], (len(inside), *shape)).astype(float)


def binned(projections, weights, voxel, volume_shape, size: int) -> Level:
    """Projections, blurred and summed over size × size pixels, and what belongs to them."""

    def mean(images):
        views, y, x = images.shape
        cut = images[:, : y // size * size, : x // size * size]
        return cut.reshape(views, y // size, size, x // size, size).mean((2, 4))

    spread = (0, BLUR * size, BLUR * size)
    valid = gaussian_filter((weights > 0).astype(float), spread)
    known = gaussian_filter(np.where(weights > 0, projections, 0.0), spread) / np.maximum(valid, 1e-6)
    own = weights * (valid > 0.5)
    total = mean(own)
    measured = np.where(total > 0, mean(own * known) / np.where(total > 0, total, 1), 0)
    middle = [(n // size // 2) * size + (size - 1) / 2 - n // 2 for n in projections.shape[1:]]
    cells = tuple(-(-n // size) for n in volume_shape)
    steps = three(tuple(size * v for v in voxel))
    measured, total = (jnp.asarray(array, np.float32) for array in (measured, total))
    return Level(measured, total, steps, (cells[0], cells[1], cells[2]), np.multiply(middle, voxel[1:]))


def _refined(level: Level, found, nominal, free, turns, iterations, angles, prior):
    """Turns of the volume and the geometry: parameters, volume, misfits and the farthest moves."""
    found = nominal + without_gauge(found - nominal, nominal[:, 0])
    within = np.concatenate([np.zeros(3), level.offset])  # a view's middle pixel lies elsewhere on coarser pixels
    volume, moved = jnp.zeros(level.volume_shape, jnp.float32), []
    fixed, field = basis_of(free, level.measured), level.measured.shape[1:]
    jacobian = jnp.zeros((len(found), 5, *level.measured.shape[1:]), jnp.float32)
    for _ in range(turns):
        projector = Projector(_geometry(found - within), level.voxel, (field[0], field[1]))
        basis = jnp.concatenate([fixed, jacobian[:, 3:]], 1)
        volume = fista(projector, level.measured, volume, iterations, weights=level.weights, free=basis).volume
        images, jacobian = linearised(projector, volume)
        residual = np.asarray(without(level.measured - images, level.weights, fixed), float)
        slopes = np.asarray(jacobian, float) * (1 if angles else np.array([0, 0, 0, 1, 1])[:, None, None])
        slopes = np.stack([without(jnp.asarray(s, np.float32), level.weights, fixed) for s in slopes.swapaxes(0, 1)], 1)
        change = newton_step(residual, slopes, np.asarray(level.weights, float), found - nominal, prior)
        change = _limited(change, level)
        found = found + change
        moved.append(float(np.abs(change * _lever(level)).max()))
        if moved[-1] < STILL * level.voxel[2]:
            break
    weights = np.asarray(level.weights, float)
    misfits = np.sqrt((weights * residual**2).sum((1, 2)) / np.maximum(weights.sum((1, 2)), 1e-30))
    return found, volume, misfits, moved


@eqx.filter_jit
def linearised(projector: Projector, volume: Stack) -> tuple[Images, Float[Array, "view 5 y x"]]:
    """The projections of a volume, and their derivatives by tilt, angles [1/rad] and shift [1/Å] of the view."""
    geometry = projector.geometry

    def one(view):
        def of(q):
            return project_view(volume, projector.voxel, q[0], q[1:3], q[3:], projector.shape, projector.kernel)

        image, slopes = jax.linearize(of, view)
        return image, jax.vmap(slopes)(jnp.eye(5, dtype=view.dtype))

    angles = jnp.zeros_like(geometry.shifts) if geometry.angles is None else geometry.angles
    return jax.lax.map(one, jnp.concatenate([geometry.tilts[:, None], angles, geometry.shifts], 1))


def newton_step(residual, slopes, weights, away: Parameters, prior: float) -> Parameters:
    """The change of the geometry of every view that brings its residual down, robustly (Huber).

    `away` is how far it stands from the nominal one, from which the angles stray by `prior` [rad].
    """
    precision = np.array([1 / prior**2] * 3 + [0.0] * 2)
    changes = np.zeros(away.shape)
    for change, r, slope, w, a in zip(changes, residual, slopes, weights, away, strict=True):
        if not w.any():
            continue
        spread = 1.4826 * np.median(np.abs(np.sqrt(w) * r)[w > 0]) + 1e-30
        size = np.abs(np.sqrt(w) * r) / spread
        robust = w * np.minimum(1, HUBER / np.maximum(size, HUBER))
        variance = CORRELATED * np.sum(robust * r**2) / np.count_nonzero(w)
        normal = np.einsum("ayx,yx,byx->ab", slope, robust, slope) / variance
        right = np.einsum("ayx,yx,yx->a", slope, robust, r) / variance - precision * a
        damped = normal + np.diag(precision + DAMPING * np.diag(normal) + 1e-12)
        change[:] = np.linalg.solve(damped, right) * (np.diag(normal) > 0)
    return changes


def without_gauge(change: Parameters, tilts) -> Parameters:
    """The change less the shift of the whole specimen in it, τ_l = Π R_l t."""
    seen = np.zeros((len(tilts), 2, 3))
    seen[:, 0, 1], seen[:, 1, 0], seen[:, 1, 2] = 1, np.sin(tilts), np.cos(tilts)
    shifts = change[:, 3:]
    common = np.linalg.lstsq(seen.reshape(-1, 3), shifts.ravel(), rcond=None)[0]
    return np.concatenate([change[:, :3], shifts - seen @ common], 1)


def _limited(change, level: Level):
    """No step moves anything by more than a voxel."""
    longest = level.voxel[2] / _lever(level)
    return np.clip(change, -longest, longest)


def _lever(level: Level):
    """What a change of one of each parameter moves at most [Å]: an angle, the edge of the field."""
    edge = max(n * p for n, p in zip(level.volume_shape, level.voxel, strict=True)) / 2
    return np.array([edge] * 3 + [1.0] * 2)


def _weights(weights, projections):
    weights = np.ones(len(projections)) if weights is None else np.asarray(weights, float)
    if weights.shape not in (projections.shape, projections.shape[:1]) or weights.min() < 0:
        raise ValueError(
            f"weights of shape {weights.shape}, at least {weights.min():.4g}, came with projections of "
            f"{projections.shape}; give numbers from zero up, one for each view or each pixel of each view"
        )
    return np.broadcast_to(weights.reshape(*weights.shape, *(1,) * (3 - weights.ndim)), projections.shape)


def _parameters(geometry: Geometry) -> Parameters:
    angles = np.zeros((len(geometry.tilts), 2)) if geometry.angles is None else geometry.angles
    return np.concatenate([np.asarray(geometry.tilts)[:, None], angles, geometry.shifts], 1).astype(float)


def _geometry(parameters: Parameters) -> Geometry:
    tilts, angles, shifts = (np.asarray(p, np.float32) for p in np.split(parameters, [1, 3], axis=1))
    return Geometry(tilts[:, 0], angles if angles.any() else None, shifts)
