"""Linear map (scale, rotation, shear) between nominal and true positions, from the patterns.

A free specimen follows a wrong map: it is stretched with the scan, and only neighbours that
overlap contradict one another by a few hundredths of an Å. The map is therefore found before the
specimen, by variable projection (Golub & Pereyra 2003): a short reconstruction from an empty
specimen for each map that is tried, and Gauss–Newton steps on the four numbers of the map.

Noise must not take part in the choice. With a larger scale fewer shots share a pixel, so a
specimen has more freedom and fits its noise better: the scale that minimises the training loss
is too large by several per cent at 2·10⁴ quanta a pattern. The quanta are therefore split into
two halves (by a binomial draw, independent for Poisson counts) with a reconstruction each, and
each is compared with the quanta of the other. With r these residuals and J their derivatives by
the map, it solves J₁ᵀr₁ + J₂ᵀr₂ = 0; the curvature J₁ᵀJ₂ holds no noise that the halves share.

The steps end after a fixed number and a common scale is determined least well: the quoted
errors are statistical and do not hold what short reconstructions leave.
"""

from collections.abc import Callable
from copy import copy
from dataclasses import replace
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float

from ..data import Batch, Dataset, batches, make_batch
from ..halves import thinned
from ..inverse.losses import amplitude, misfit
from ..inverse.solve import init_state, make_step, owned, per_part
from ..model import Model, predict
from ..parts.indexed import PerShot
from ..parts.scan import AffineScan, map_parameters

Matrix = Float[np.ndarray, "2 2"]

LEVELS = ((64, 0.02, 4, 20), (256, 0.01, 3, 20))  # shots, difference, Gauss–Newton steps, epochs
BATCH, AT_ONCE = 32, 16  # shots a step of every short reconstruction; patterns compared together
RATES, END = {"specimen": 3e-2, "probe": 1e-2}, 0.03  # with a cosine course
REACH = 0.25  # of the block's size, by which the specimen exceeds it
LARGEST = 0.06  # change of an element of the matrix in one step
FEWEST = 20  # quanta of a pattern that is used


class FoundMap(NamedTuple):
    """A linear map on (y, x) about the mean of the positions, and its statistical error."""

    matrix: Matrix
    error: Float[np.ndarray, "4"]  # standard errors of scale y, scale x, shear and rotation [rad]

    def __str__(self) -> str:
        y, x, shear, turn = map_parameters(self.matrix)
        dy, dx, dshear, dturn = self.error
        return (
            f"scale {y:.4f} ± {dy:.4f} (y), {x:.4f} ± {dx:.4f} (x), rotation {np.rad2deg(turn):.3f} ± "
            f"{np.rad2deg(dturn):.3f}°, shear {shear:.4f} ± {dshear:.4f}"
        )


def find_affine(
    data: Dataset, first: Callable[[Dataset], Model], seed: int = 0, say: Callable[[str], None] = lambda text: None
) -> FoundMap:
    """Map that brings the nominal positions of `data` to the true ones; `first(data)` is a first model of some shots.

    Uses the patterns in the middle of the scan of the view with most shots, a few at first, then
    up to 256. Raises ValueError for fewer than nine patterns with counts.
    """
    view = int(np.argmax(data.n_shots))
    matrix, error = np.eye(2), np.full((4, 4), np.inf)
    for shots, step, rounds, epochs in LEVELS:
        block = middle_of(data.view(view), shots)
        steps = epochs * -(-len(block.positions[0]) // BATCH)
        courses = (optax.cosine_decay_schedule(rate, steps, END) for rate in RATES.values())
        optimiser = per_part(dict(zip(RATES, map(optax.adam, courses), strict=True)))
        descent = optimiser, make_step(misfit(amplitude), optimiser)
        wide = place_nominal(block, (1 + REACH) * matrix).positions
        trials = [
            Trial(half := thinned(block, n, seed), first(with_positions(half, wide)), *descent, epochs, n)
            for n in (0, 1)
        ]
        for _ in range(rounds):
            change, error = _newton(trials, matrix, step)
            matrix = matrix + np.clip(change, -LARGEST, LARGEST)
            say(f"map of the scan: {FoundMap(matrix, _errors(matrix, error))}")
            if np.all(np.abs(change.ravel()) < np.maximum(np.sqrt(np.diag(error)) / 2, step / 20)):
                break
    return FoundMap(matrix, _errors(matrix, error))


def pivot(data: Dataset) -> Float[np.ndarray, "2"]:
    """Mean of the positions of all views [Å], about which a map turns and scales."""
    return np.mean(np.concatenate(data.positions), 0)


def place_nominal(data: Dataset, matrix: Matrix) -> Dataset:
    """The same patterns at their positions through a linear map about `pivot`."""
    middle = pivot(data)
    return with_positions(data, [(own - middle) @ np.asarray(matrix, float).T + middle for own in data.positions])


def with_positions(data: Dataset, positions: list[Float[np.ndarray, "_ 2"]]) -> Dataset:
    """The same patterns at other positions [Å] of every view."""
    other = copy(data)
    other.positions = positions
    return other


def middle_of(data: Dataset, shots: int) -> Dataset:
    """The patterns of one view nearest to the middle of the scan, in whole quanta [at most `shots`]."""
    positions = data.positions[0]
    middle = (positions.min(0) + positions.max(0)) / 2
    usable = np.flatnonzero(data.dose() >= FEWEST)
    if len(usable) < 9:
        raise ValueError(
            f"{len(usable)} patterns with at least {FEWEST} counts; the map of a scan requires nine that overlap "
            '(scan.kind = "free" asks for none)'
        )
    distance = np.abs(positions[usable] - middle).max(1)
    chosen = np.sort(usable[np.argsort(distance, kind="stable")[:shots]])
    counts = np.rint(np.fft.fftshift(data.patterns(0, chosen), axes=(1, 2))).astype(np.uint32)
    return Dataset(counts, positions[chosen], data.grid, data.mask, None, data.probe_guess, dict(data.about))


class Trial:
    """Short reconstructions of one half of the quanta, with one map after another."""

    def __init__(self, data: Dataset, start: Model, optimiser, step: Callable, epochs: int, seed: int):
        nominal = PerShot(jnp.asarray(data.positions[0], float))
        scan = AffineScan(nominal, jnp.eye(2), jnp.zeros(2), jnp.zeros(2), jnp.asarray(pivot(data), float))
        self.data, self.start = data, replace(start, scan=scan)
        self.optimiser, self.step = optimiser, step
        drawn = batches(data, size=BATCH, epochs=epochs, seed=seed)
        self.batches: Batch = jax.tree.map(lambda *own: np.stack(own), *drawn)

    def model(self, matrix: Matrix) -> Model:
        """The model that the patterns lead to with this map."""
        scan = replace(self.start.scan, matrix=jnp.asarray(matrix, float))
        model = owned(replace(self.start, scan=scan))
        return self.step(model, init_state(self.optimiser, model), self.batches)[0]


def _newton(trials: list[Trial], matrix: Matrix, step: float) -> tuple[Matrix, Float[np.ndarray, "4 4"]]:
    """Gauss–Newton step of the four elements by central differences, and their covariance."""
    units = step * np.eye(4).reshape(4, 2, 2)
    tried = [matrix, *(matrix + units), *(matrix - units)]
    models = [_stack([trial.model(one) for one in tried]) for trial in trials]
    n = len(trials[0].data.positions[0])
    score, normal, spread = np.zeros(4), np.zeros((4, 4)), np.zeros((4, 4))
    for shots in np.array_split(np.arange(n), -(-n // AT_ONCE)):
        halves = [make_batch(trial.data, 0, shots, size=AT_ONCE) for trial in trials]
        more = [np.asarray(one, float) for one in _products(models, halves, step)]
        score, normal, spread = score + more[0], normal + more[1], spread + more[2]
    size, axes = np.linalg.eigh(normal)
    inverse = axes / np.maximum(size, 1e-3 * size.max()) @ axes.T
    return -(inverse @ score).reshape(2, 2), inverse @ spread @ inverse / 4  # √I varies by 1/4


def _stack(models: list[Model]) -> Model:
    return jax.tree.map(lambda *own: jnp.stack(own) if eqx.is_array(own[0]) else own[0], *models)


@eqx.filter_jit
def _products(models: list[Model], halves: list[Batch], step: float):
    """Jᵀr against the counts of the other half, JᵀJ with factors of both halves, and ΣJᵀJ."""

    def of_half(tried, batch, other):
        arrays, rest = eqx.partition(tried, eqx.is_array)
        predicted = jax.lax.map(lambda own: predict(eqx.combine(own, rest), batch.shots), arrays)
        weight = jnp.sqrt(batch.weight)[:, None, None]
        roots = weight * jnp.sqrt(jnp.maximum(predicted, 0.0))
        residual = roots[0] - weight * jnp.sqrt(other.counts.astype(roots.dtype))
        return residual.ravel(), ((roots[1:5] - roots[5:]) / (2 * step)).reshape(4, -1)

    (r, slopes), (r2, slopes2) = map(of_half, models, halves, halves[::-1])
    normal = slopes @ slopes2.T
    return slopes @ r + slopes2 @ r2, normal + normal.T, slopes @ slopes.T + slopes2 @ slopes2.T


def _errors(matrix: Matrix, covariance: Float[np.ndarray, "4 4"]) -> Float[np.ndarray, "4"]:
    """Standard errors of `map_parameters`, from the covariance of the elements."""
    units = np.eye(4).reshape(4, 2, 2)
    slopes = np.stack([(map_parameters(matrix + 1e-6 * u) - map_parameters(matrix - 1e-6 * u)) / 2e-6 for u in units])
    return np.sqrt(np.maximum(np.einsum("ij,ik,kj->j", slopes, covariance, slopes), 0.0))
