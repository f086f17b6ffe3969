"""Positions of shots that are wrong by many pixels, from the patterns.

A gradient with respect to a position sees no further than the finest structure of the probe, and a
specimen that was fitted to a pattern at a wrong place predicts it there. Every shot is therefore
placed by a specimen that was made without it: a fresh one is fitted to all shots but a part, and
each of that part goes where its pattern is predicted best, weighed against the spread of the
errors. The first of these specimens are blurred by the errors and place shots roughly; the nearer
the places come, the sharper the specimens become. (Maiden et al., Ultramicroscopy 120, 64 (2012),
try places with the specimen that has followed the shot.)

Neighbours agree with each other long before all shots do, as no pattern shows the place of a group.
Errors of single shots have no mean, so that of neighbours is taken out, of ever larger groups.
"""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int
from scipy.spatial import KDTree

from ..data import Batch, Dataset, batches, make_batch
from ..data.windows import crop_detector
from ..inverse.losses import amplitude, misfit
from ..inverse.step import minimise, per_part
from ..model import Model, predict, probe_positions
from ..parts.indexed import PerShot
from ..parts.scan import FreeScan
from .affine import probe_radius

Positions = Float[np.ndarray, "shot 2"]  # (y, x) [Å]
Offsets = Float[np.ndarray, "offset 2"]  # [Å]
Places = Float[np.ndarray, "k n 2"]  # k places of each of n shots [Å]

MIN_SHOTS = 25
QUICK = 4096  # shots times slices
BATCH = 16
PARTS = 4  # of the shots, each placed by the specimen of the others
LARGEST = 0.5  # of the probe's radius, an error before it is measured
SMALL = 0.5  # pixels, an error that needs no search
TRIAL = 6  # rounds, after which a search that measures the error goes on …
BETTER = 0.8  # … if the misfit is below this part of that of the first round
NORMAL = 1.4826  # standard deviation over the median distance from the median
MAX_ROUNDS = 40  # over the whole reach, in the middle of the detector
PATIENCE = 5  # rounds that do not lessen the misfit
GAIN = 0.99  # of the misfit, after a round that does
NEAR_ROUNDS = 6  # near the places found, in the whole detector
EPOCHS = 6  # of a fresh specimen
FIRST_EPOCHS = 15  # of specimen and probe at given places
LAST_EPOCHS = 60  # of all together
REACH = 3.7  # errors (y, x); one in a thousand is beyond
STEP = 0.4  # errors, of the grid of places
NEAR = 3.0  # pixels around the present places, on a grid of one
NEIGHBOURS = 12  # in a group of the first round, a third more in each of the next
COUNTS = 60.0  # independent values that a pattern has beside a poor model
SIGNAL = 0.999  # of the counts, in the middle of the detector
MIN_DETECTOR = 16  # pixels
RATES = {"specimen": 3e-2, "probe": 2e-2, "scan": 0.1}  # of Adam; they fall in every fit
FALL = 0.1  # of a rate at its end


class Search(NamedTuple):
    """What the rounds of a search share."""

    data: Dataset
    fresh: Model  # with the specimen that every fit begins from
    error: float  # Å
    measured: bool  # whether the places found tell the error
    rng: np.random.Generator

    def restart(self, model: Model) -> Model:
        """The model with a fresh specimen."""
        return eqx.tree_at(lambda m: m.specimen, model, self.fresh.specimen)


def find_positions(
    data: Dataset,
    first: Callable[[Dataset], Model],
    error: float,
    say: Callable[[str], None] = lambda text: None,
    seed: int = 0,
    measured: bool = False,
) -> Positions | None:
    """Positions of all shots of one scan (y, x) [Å], in the frame of `data.positions`.

    `first(data)` is a first model, with an empty specimen, best of few slices and with one mode of
    the probe. `error` is the root-mean-square error of the recorded positions along y and x [Å];
    no shot is searched for beyond `REACH` times it. If it is `measured` in every round, it begins
    as the largest possible, and None comes back where the first rounds show that no other positions
    fit better. The mean displacement of all, which no pattern shows, is zero. Raises ValueError as
    `require_searchable` does.
    """
    require_searchable(data)
    rng = np.random.default_rng(seed)
    middle = _with_signal(data)
    found = _searched(Search(middle, first(middle), error, measured, rng), say)
    if found is None:
        return None
    model, error = found
    search = Search(data, first(data), error, False, rng)
    model = _at(search.fresh, probe_positions(model))
    model = _fitted(search, model, ("specimen", "probe"), FIRST_EPOCHS)
    for _ in range(NEAR_ROUNDS):
        model = _refitted(search, model, _placed_by_others(search, model)[0])
    found = probe_positions(_fitted(search, model, tuple(RATES), LAST_EPOCHS))
    return found - np.mean(found - data.positions[0], 0)


def require_searchable(data: Dataset) -> None:
    """Raise ValueError for several views and for fewer than `MIN_SHOTS` shots."""
    if data.n_views > 1:
        raise ValueError(
            f"the measurement has {data.n_views} views; a search for positions requires one scan; "
            "leave scan.error_angstrom out"
        )
    if data.n_shots[0] < MIN_SHOTS:
        raise ValueError(
            f"the scan has {data.n_shots[0]} shots; a search for positions requires {MIN_SHOTS} "
            "that overlap; leave scan.error_angstrom out"
        )


def is_quick(data: Dataset, slices: int) -> bool:
    """True where a search is possible and takes no more than an hour on a few cores."""
    possible = data.n_views == 1 and data.n_shots[0] >= MIN_SHOTS
    return possible and data.n_shots[0] * slices <= QUICK


def largest_error(model: Model) -> float:
    """Largest error of positions along y and x [Å] that a search may begin with."""
    return LARGEST * probe_radius(model)


def _searched(search: Search, say: Callable[[str], None]) -> tuple[Model, float] | None:
    """The model after searches over the whole reach, until they no longer lessen the misfit, and
    the error of the recorded positions [Å]. None where an error to be measured is below a pixel, or
    the misfit does not fall.
    """
    recorded = search.data.positions[0]
    pixel = max(search.fresh.grid.pixel)
    model = _fitted(search, search.fresh, ("specimen", "probe"), FIRST_EPOCHS)
    best = []
    for number in range(MAX_ROUNDS):
        grid = grid_within(REACH * search.error, max(STEP * search.error, pixel))
        places, smallest = _placed_by_others(search, model, grid)
        group = int(NEIGHBOURS * (1 + number / 3))
        grouped = group <= len(places) // 2
        model = _refitted(search, model, _ungrouped(places, recorded, group) if grouped else places)
        moved = _spread(probe_positions(model) - recorded)
        say(
            f"search {number + 1} for positions: {moved:.3g} Å along y and x, misfit {smallest:.4g}"
        )
        best.append(smallest)
        if search.measured:
            search = search._replace(error=min(search.error, max(moved, pixel)))
            useless = number + 1 == TRIAL and min(best) > BETTER * best[0]
            if useless or (number > 0 and moved < SMALL * pixel):
                return None
        if not grouped and min(best[-PATIENCE:]) > GAIN * min(best[:-PATIENCE], default=np.inf):
            break
    return model, search.error


def _spread(away: Positions) -> float:
    """Standard deviation along y and x of displacements, few of which may be outliers [Å]."""
    return float(NORMAL * np.median(np.abs(away - np.median(away, 0))))


def _placed_by_others(
    search: Search, model: Model, grid: Offsets | None = None
) -> tuple[Positions, float]:
    """Where the specimen of other shots predicts the pattern of each best, and the mean misfit.

    Places are near the present ones and on a `grid` around the recorded ones.
    """
    data = search.data
    present = probe_positions(model)
    places = present.copy()
    near = grid_within(NEAR * max(model.grid.pixel), max(model.grid.pixel))
    order = search.rng.permutation(len(places))
    smallest = np.zeros(len(places))
    for number in range(PARTS):
        own = np.sort(order[number::PARTS])
        others = np.sort(np.delete(order, np.s_[number::PARTS]))
        made = _fitted(search, search.restart(model), ("specimen",), EPOCHS, others)
        recorded = data.positions[0][own]
        tried = present[own] + near[:, None]
        if grid is not None:
            tried = np.concatenate([tried, recorded + grid[:, None]])
        found = misfits(made, data, own, tried)
        places[own] = best_places(found, tried, recorded, search.error)
        smallest[own] = found.min(0)
    return places, float(smallest.mean())


def best_places(
    misfits: Float[np.ndarray, "k n"],
    places: Places,
    recorded: Float[np.ndarray, "n 2"],
    error: float,
) -> Float[np.ndarray, "n 2"]:
    """The most probable of k places of each of n shots [Å].

    Misfits count in units of the smallest, which the model's errors rule more than noise does.
    """
    distance = np.sum((places - recorded) ** 2, -1) / (2 * error**2)
    cost = COUNTS * misfits / misfits.min(0) + distance
    return places[cost.argmin(0), np.arange(places.shape[1])]


def misfits(
    model: Model, data: Dataset, shots: Int[np.ndarray, " n"], places: Places
) -> Float[np.ndarray, "k n"]:
    """Misfit of the patterns of some shots at each of their places."""
    moves = np.zeros((len(places), data.n_shots[0], 2), np.float32)
    moves[:, shots] = places - probe_positions(model)[shots]
    return np.asarray(_misfits(model, make_batch(data, 0, shots), jnp.asarray(moves)), float)


@eqx.filter_jit
def _misfits(model: Model, batch: Batch, moves: Float[Array, "k shot 2"]) -> Float[Array, "k n"]:
    counts = jnp.asarray(batch.counts, float)

    def at(by: Float[Array, "shot 2"]) -> Float[Array, " n"]:
        moved = eqx.tree_at(lambda m: m.scan, model, model.scan.move(PerShot(by)))
        return jnp.sum(amplitude(predict(moved, batch), counts), (1, 2))

    return jax.lax.map(at, moves)


def _ungrouped(places: Positions, recorded: Positions, group: int) -> Positions:
    """Places without the mean displacement of the `group` of shots nearest to each."""
    away = places - recorded
    _, nearest = KDTree(places).query(places, k=group)
    return places - away[nearest].mean(1)


def grid_within(radius: float, step: float) -> Offsets:
    """Points of a square grid within a radius [Å]."""
    n = int(radius / step)
    grid = step * np.moveaxis(np.mgrid[-n : n + 1, -n : n + 1], 0, -1).reshape(-1, 2)
    return grid[np.hypot(*grid.T) <= radius]


def _refitted(search: Search, model: Model, places: Positions) -> Model:
    """The model at new places, with a fresh specimen fitted there."""
    return _fitted(search, search.restart(_at(model, places)), tuple(RATES), EPOCHS)


def _fitted(
    search: Search,
    model: Model,
    parts: tuple[str, ...],
    epochs: int,
    shots: Int[np.ndarray, " n"] | None = None,
) -> Model:
    """The model after epochs of Adam on some parts, from some shots or all."""
    shots = np.arange(search.data.n_shots[0]) if shots is None else shots
    steps = epochs * -(-len(shots) // BATCH)
    rates = {part: optax.cosine_decay_schedule(RATES[part], steps, FALL) for part in parts}
    solver = per_part({part: optax.adam(rate) for part, rate in rates.items()})
    seed = int(search.rng.integers(2**31))
    drawn = batches(search.data, BATCH, epochs, seed=seed, shots=shots)
    return minimise(misfit(amplitude), model, drawn, solver)[0]


def _at(model: Model, places: Positions) -> Model:
    scan = FreeScan(PerShot(jnp.asarray(places, float)))
    return eqx.tree_at(lambda m: m.scan, model, scan)


def _with_signal(data: Dataset) -> Dataset:
    """The measurement in the smallest middle of the detector that holds nearly all counts."""
    total = data.mean_pattern()
    rows, columns = (n // 2 for n in total.shape)
    largest = min(total.shape)
    for size in range(MIN_DETECTOR, largest, 8):
        half = size // 2
        inside = total[rows - half : rows + half, columns - half : columns + half]
        if inside.sum() >= SIGNAL * total.sum():
            return crop_detector(data, (size, size))
    return data
