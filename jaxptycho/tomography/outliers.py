"""Outlier views of a tilt series: empty ones, and those of another specimen.

The misfit of a view does not show this: a view without contrast has the smallest misfit of all.
Each view is compared with the projection of a volume that was made without it (cross-validation,
Stone, J. R. Stat. Soc. B 36, 111 (1974)), and its neighbours with volumes made with and without it.
"""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from .linear import basis_of, fista, project_out
from .projections import Images, Projector

FOLDS = 5  # parts of the series that are predicted from the rest
ITERATIONS = 8  # of each predicting volume
EMPTY = 0.05  # of the median contrast, below which a view counts as empty
CHANCE = 0.15  # fraction of a view's variance that noise explains of other noise
# of the median explained fraction: below it a view counts as an outlier, or is examined
APART = (0.3, 0.5)
SUSPECT = 2.0  # times the median misfit, from which a view is examined
BAD = 3.0  # times the median misfit, from which a view is examined strictly
# smallest growth of the neighbours' error without a sound view: for a suspect, and for a misfit
# beyond BAD; the outermost views have one neighbour, often across a gap
HELP = {"inner": (1.25, 1.4), "outer": (1.1, 1.25)}


def unusable(projections: Images, weights: Images) -> dict[int, str]:
    """Views that cannot be used by an alignment, with the cause of each."""
    causes: dict[int, str] = {}
    contrast = np.zeros(len(projections))
    for view, (image, weight) in enumerate(zip(projections, weights, strict=True)):
        valid = weight > 0
        if not valid.any():
            causes[view] = "no pixel of it has a weight"
        elif not np.isfinite(image[valid]).all():
            causes[view] = "it holds values that are not finite"
        else:
            contrast[view] = np.std(image[valid].astype(float))
    seen = contrast[contrast > 1e-9 * contrast.max(initial=0.0)]
    for view in range(len(projections)):
        if view not in causes and (not len(seen) or contrast[view] <= EMPTY * np.median(seen)):
            causes[view] = "it is empty: no contrast above noise"
    return causes


def held_out(
    projector: Projector, measured: Images, weights: Images, shape: tuple[int, int, int]
) -> Float[np.ndarray, " view"]:
    """Signed fraction of the variance of every view that a volume made without it explains.

    It is r·|r| of the correlation r. A fifth of the views that have weights is left out at a time,
    evenly over the series; 0 for views without weights.
    """
    used = np.flatnonzero(np.asarray(weights).any((1, 2)))
    used = used[np.argsort(np.asarray(projector.geometry.tilts)[used], kind="stable")]
    found = np.zeros(len(measured))
    for fold in range(min(FOLDS, len(used))):
        mine = used[fold::FOLDS]
        found[mine] = _explained(projector, measured, weights, shape, mine)[mine]
    return found


def gain(
    projector: Projector, measured: Images, weights: Images, shape: tuple[int, int, int], view: int
) -> float:
    """Error of the neighbours predicted without a view over that with it: above 1 if it helps."""
    used = np.flatnonzero(np.asarray(weights).any((1, 2)))
    order = used[np.argsort(np.asarray(projector.geometry.tilts)[used], kind="stable")]
    place = int(np.flatnonzero(order == view)[0])
    neighbours = [order[n] for n in (place - 1, place + 1) if 0 <= n < len(order)]

    def error(without_view: bool) -> float:
        parts = [([n, view] if without_view else [n], n) for n in neighbours]
        errors = (1 - _explained(projector, measured, weights, shape, out)[n] for out, n in parts)
        return float(sum(errors))

    return float(error(True) / max(error(False), 1e-12))


def worst_view(
    projector: Projector,
    measured: Images,
    weights: Images,
    shape: tuple[int, int, int],
    misfits: Float[np.ndarray, " view"],
    explained: Float[np.ndarray, " view"] | None = None,
) -> int | None:
    """View that fits the others worst, None if all fit.

    Such a view is unexplained by the others, or has a large misfit, and does not help to predict
    its neighbours.
    """
    used = np.asarray(weights).any((1, 2))
    if np.count_nonzero(used) < 4:  # two views do not reliably predict a third
        return None
    relative = np.where(used, misfits / max(float(np.median(misfits[used])), 1e-30), 0)
    suspects = set(np.flatnonzero(relative > SUSPECT))
    if explained is not None:
        apart, doubtful = (fraction * np.median(explained[used]) for fraction in APART)
        least = int(np.argmin(np.where(used, explained, np.inf)))
        if explained[least] < min(CHANCE, apart):
            return least
        suspects |= set(np.flatnonzero(used & (explained < doubtful)))
    for view in sorted(map(int, suspects), key=lambda view: -relative[view]):
        tilts = np.asarray(projector.geometry.tilts)
        side = "outer" if tilts[view] in (tilts[used].min(), tilts[used].max()) else "inner"
        if gain(projector, measured, weights, shape, view) < HELP[side][int(relative[view] > BAD)]:
            return view
    return None


def _explained(projector, measured, weights, shape, left_out) -> Float[np.ndarray, " view"]:
    kept = np.ones(len(measured), np.float32)
    kept[left_out] = 0
    return np.asarray(
        _correlation(projector, measured, weights, jnp.asarray(kept), jnp.zeros(shape, jnp.float32))
    )


@eqx.filter_jit
def _correlation(projector, measured, weights, kept, empty):
    """r·|r| of every view with the projection of a volume of the `kept` views.

    A constant of each view is left out.
    """
    basis = basis_of("constant", measured)
    volume = fista(
        projector, measured, empty, ITERATIONS, weights=weights * kept[:, None, None], free=basis
    ).volume
    shown, seen = (project_out(images, weights, basis) for images in (projector(volume), measured))
    product = jnp.sum(weights * shown * seen, (1, 2))
    power = jnp.sum(weights * shown**2, (1, 2)) * jnp.sum(weights * seen**2, (1, 2))
    r = product / jnp.sqrt(jnp.maximum(power, jnp.finfo(power.dtype).tiny))
    return r * jnp.abs(r)
