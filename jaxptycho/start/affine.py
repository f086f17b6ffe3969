"""Linear map (scale, rotation, shear) between nominal and true positions, from the patterns.

A free specimen follows a wrong map: it is stretched with the scan, and the gradient with respect
to the map vanishes although the map is wrong. After some epochs of specimen and probe, steps of
`inverse.geometry`, which solve for map, specimen and probe together, alternate with further epochs.
The steps converge linearly, with a ratio of 0.5 to 0.9 while the model is poor: they are made
longer by the relaxation of Irons and Tuck, Int. J. Numer. Methods Eng. 1, 275 (1969).

Some hundred patterns suffice. They are spread over so much of the scan that neighbours overlap,
since patterns closer to each other tell no scale, and binned as far as the window holds the probe.
Patterns are not cut: what is scattered beyond the disc tells most of a map, and a model without it
makes it wrong by a per cent.
"""

import math
import warnings
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import replace
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float

from ..data import Dataset, batches, make_batch
from ..data.windows import bin_detector
from ..inverse.geometry import refine_geometry
from ..inverse.geometry_numbers import numbers_of
from ..inverse.losses import amplitude, misfit
from ..inverse.step import minimise, per_part
from ..model import Model
from ..parts.indexed import PerShot, first_shot
from ..parts.scan import AffineScan, linear_map, map_parameters
from ..physics import waves
from .optics import measure_optics

Matrix = Float[np.ndarray, "2 2"]
Vector = Float[np.ndarray, "k"]

NAMES = ("scan.scale_y", "scan.scale_x", "scan.shear", "scan.rotation")
ELIMINATED = ("specimen", "probe")
SHOTS = 225  # most patterns used
MIN_SHOTS = 9
MIN_QUANTA = 20  # of a pattern that is used
SPACING = 0.5  # of the probe's radius, at least between patterns of a region
INSIDE = 0.9  # of the intensity, within the probe's radius
ROOM = 2.0  # radii of the probe in half a window of binned patterns
SURE = 0.5  # °, largest error of a rotation from the bright field
FAR = 15.0  # °, largest rotation of a scan that is taken for its map
REACH = 0.15  # of the block's size, by which the specimen exceeds it
BATCH = 16
FIRST_EPOCHS = 40  # with a fixed map; of fewer the steps end at maps that are wrong by 0.5 %
EPOCHS = 10  # between two steps
RATES = {"specimen": 2e-2, "probe": 1e-2}  # of Adam in the first epochs; a half of it afterwards
MAX_STEPS = 24
MAX_CHANGE = 0.03  # of a number in one step
MAX_FACTOR = 5.0  # of the relaxation
FINE = 2e-3  # change of a number, from which on the steps alone are more accurate
SETTLED = 3e-4  # largest change of a number in the last two steps
UNSURE = 1e-3  # standard error of a number
AGREED = 1.5e-3  # difference of two maps
BEYOND = 4.0  # times the difference of two maps, at which a third search begins
MAX_BEYOND = 0.03
TRIAL = 0.01  # change of every number, to see whether the patterns show it
SEEN = 0.1  # fraction of it that a step must undo


def find_affine(
    data: Dataset,
    first: Callable[[Dataset], Model],
    say: Callable[[str], None] = lambda text: None,
    bins: bool = True,
) -> Matrix:
    """Matrix on (y, x) that brings the nominal positions of `data` to the true ones, about `pivot`.

    `first(data)` is a first model of some shots, of electrons best a phase object: an absorption,
    which is hardly there, trades places with strain, and the steps do not come to rest. Uses
    patterns of the view with most shots, binned where `bins`. Not every search ends at the least
    misfit: of two or three that begin on either side, the one of least misfit is taken. Warns where
    no other one ends there, where the map still changes after the last step or is uncertain by
    noise and the scatter of searches, and where the patterns do not show a change of it. Raises
    ValueError for fewer than nine patterns with counts.
    """
    view = int(np.argmax(data.n_shots))
    usable = usable_patterns(data.view(view))
    turn = bright_field_rotation(usable)
    some = np.random.default_rng(0).permutation(usable.n_shots[0])[:MIN_SHOTS]
    radius = probe_radius(first(usable.subset(some)))  # the first nine may lie on a line
    block = spread_patterns(usable, radius)
    block = binned_patterns(block, radius) if bins else block
    wide = place_nominal(block, (1 + REACH) * np.eye(2))
    ends = several_searches(first(wide), block, linear_map(rotation=turn), say)
    errors = np.hypot(_errors(ends[0].model, block), scatter_of_searches(ends))
    say(f"map of the scan: {describe_map(ends[0].matrix, errors)}")
    for doubt in _doubts(ends, errors, block):
        warnings.warn(doubt, stacklevel=2)
    return ends[0].matrix


def _doubts(ends: list["Settled"], errors: Vector, data: Dataset) -> Iterator[str]:
    """Reasons for which the map at which the first of the `ends` is may be wrong."""
    model, change = ends[0].model, ends[0].change
    advice = (
        "compare the verdict with that of scan.kind = 'free', or give positions that are nearer"
    )
    if not searches_agree(ends):
        yield (
            "the map of the scan depends on where its search begins; that of least misfit may be "
            f"wrong; {advice}"
        )
    if errors.max() > UNSURE:
        yield (
            f"the patterns show the map of the scan to ±{errors.max():.1g} only, and simulated "
            "ones were wrong by up to six times as much; more patterns or electrons show it better"
        )
    if change > SETTLED:
        yield (
            f"the map of the scan still changes by {change:.2g} a step after {MAX_STEPS} steps and "
            f"may be wrong; {advice}"
        )
    elif missing := [n for n, r in zip(NAMES, _response(model, data), strict=True) if r < SEEN]:
        yield (
            f"the patterns hardly show {', '.join(missing)}: a change of {TRIAL} was not undone, "
            f"and the map may be wrong in it; {advice}"
        )
    if np.size(first_shot(model).specimen.thicknesses(model.grid)) > 1:
        yield (
            "scales that are found with several slices have been too small by 1.4 %, for a cause "
            f"that is not known; {advice}"
        )


class Settled(NamedTuple):
    """End of a search for a map."""

    model: Model
    change: float  # of the last step
    misfit: float  # of a pattern

    @property
    def matrix(self) -> Matrix:
        """The map."""
        scan: Any = self.model.scan  # that of `_nominal_scan`
        return np.asarray(scan.matrix, float)


def several_searches(
    model: Model, data: Dataset, start: Any, say: Callable[[str], None]
) -> list[Settled]:
    """The ends of two or three searches, that of least misfit first.

    The second one begins as far beyond the first map as the first had begun before it, a third one
    beyond the better of two that differ.
    """

    def search(matrix: Any) -> Settled:
        begun = replace(model, scan=_nominal_scan(data, jnp.asarray(matrix, float)))
        found = _settled(begun, data)
        say(f"map of the scan: {describe_map(found.matrix)}, misfit {found.misfit:.5g}")
        return found

    first = search(start)
    second = search(first.matrix @ np.linalg.inv(np.asarray(start, float)) @ first.matrix)
    better, worse = ends = sorted((first, second), key=lambda found: found.misfit)
    if searches_agree(ends):
        return ends
    away = better.matrix - worse.matrix
    third = search(better.matrix + np.clip(BEYOND * away, -MAX_BEYOND, MAX_BEYOND))
    return sorted((better, worse, third), key=lambda found: found.misfit)


def searches_agree(ends: list[Settled]) -> bool:
    """True where another search has ended at the map of least misfit, which is the first."""
    return min(_apart(ends[0], other) for other in ends[1:]) < AGREED


def scatter_of_searches(ends: list[Settled]) -> Vector:
    """Standard deviation of the numbers of the first map and of the one nearest to it."""
    nearest = min(ends[1:], key=lambda other: _apart(ends[0], other))
    numbers = (np.array(map_parameters(end.matrix)) for end in (ends[0], nearest))
    return np.abs(np.subtract(*numbers)) / math.sqrt(2)


def _apart(one: Settled, other: Settled) -> float:
    """Largest difference of two maps."""
    return float(np.abs(one.matrix - other.matrix).max())


def _settled(model: Model, data: Dataset) -> Settled:
    """The model after steps until two do not change the map by more than `SETTLED`."""
    model = _after_epochs(model, data, FIRST_EPOCHS, 1.0, 0)
    factor = 1.0
    before = np.full(len(NAMES), np.inf)
    for number in range(MAX_STEPS):
        model, correction = refine_geometry(model, data, NAMES, eliminated=ELIMINATED, errors=False)
        change = correction.change
        factor = relaxed(factor, before, change)
        allowed = np.clip(factor * change, -MAX_CHANGE, MAX_CHANGE)
        model = _moved(model, data, allowed - change)
        if max(np.abs(allowed).max(), np.abs(before).max()) < SETTLED:
            break
        before = change
        if np.abs(allowed).max() > FINE:
            model = _after_epochs(model, data, EPOCHS, 0.5, number + 1)
    shots = np.arange(data.n_shots[0])
    batch = make_batch(data, 0, shots, len(shots))
    return Settled(model, float(np.abs(allowed).max()), float(_misfit(model, batch)))


_misfit = eqx.filter_jit(misfit(amplitude))


def _errors(model: Model, data: Dataset) -> Vector:
    """Standard errors of the numbers of the map."""
    _, correction = refine_geometry(model, data, NAMES, eliminated=ELIMINATED)
    return correction.errors


def _response(model: Model, data: Dataset) -> Vector:
    """Fraction of a change of every number by `TRIAL` that a step after further epochs undoes."""
    model = _after_epochs(_moved(model, data, np.full(len(NAMES), TRIAL)), data, EPOCHS, 0.5, 0)
    _, correction = refine_geometry(model, data, NAMES, eliminated=ELIMINATED, errors=False)
    return -correction.change / TRIAL


def _moved(model: Model, data: Dataset, by: Vector) -> Model:
    """The model with its map changed, the specimen along with it."""
    middle = jnp.asarray(data.positions[0].mean(0), float)
    return numbers_of(model, NAMES).moved(model, jnp.asarray(by, float), middle)


def relaxed(factor: float, before: Vector, change: Vector) -> float:
    """Factor of a change, by that of the one `before` and how both differ (Irons and Tuck).

    1 for the first change, which has infinite numbers before it.
    """
    if not np.isfinite(before).all():
        return 1.0
    difference = change - before
    found = -factor * (before @ difference) / max(float(difference @ difference), 1e-30)
    return float(np.clip(found, 1.0, MAX_FACTOR))


def _after_epochs(model: Model, data: Dataset, epochs: int, rate: float, seed: int) -> Model:
    """The model after epochs of Adam on specimen and probe."""
    solver = per_part({part: optax.adam(rate * full) for part, full in RATES.items()})
    drawn = batches(data, BATCH, epochs, seed=seed)
    return minimise(misfit(amplitude), model, drawn, solver)[0]


def describe_map(matrix: Matrix, errors: Vector | None = None) -> str:
    """Scale, rotation and shear of a map in words, with their standard errors if they are given."""
    values = np.array(map_parameters(matrix)) * [1, 1, 1, 180 / np.pi]
    places = (4, 4, 4, 3)
    said = [f"{value:.{digits}f}" for value, digits in zip(values, places, strict=True)]
    if errors is not None:
        scaled = np.asarray(errors) * [1, 1, 1, 180 / np.pi]
        said = [f"{own} ± {error:.1g}" for own, error in zip(said, scaled, strict=True)]
    y, x, shear, turn = said
    return f"scale {y} (y), {x} (x), rotation {turn}°, shear {shear}"


def pivot(data: Dataset) -> Float[np.ndarray, "2"]:
    """Mean of the positions of all views [Å], about which a map scales and rotates."""
    return np.mean(np.concatenate(data.positions), 0)


def place_nominal(data: Dataset, matrix: Matrix) -> Dataset:
    """The same patterns at their positions through a linear map about `pivot`."""
    middle = pivot(data)
    other = copy(data)
    other.positions = [
        (own - middle) @ np.asarray(matrix, float).T + middle for own in data.positions
    ]
    return other


def usable_patterns(data: Dataset) -> Dataset:
    """The patterns of one view with enough counts. Raises ValueError for fewer than nine."""
    usable = np.flatnonzero(data.dose() >= MIN_QUANTA)
    if len(usable) < MIN_SHOTS:
        raise ValueError(
            f"{len(usable)} patterns have at least {MIN_QUANTA} counts; the map of a scan requires "
            'nine that overlap (scan.kind = "free" asks for none)'
        )
    return data.subset(usable)


def probe_radius(model: Model) -> float:
    """Radius [Å] around the middle of the window that holds `INSIDE` of the probe's intensity."""
    grid = model.grid
    modes = jnp.fft.fftshift(waves.inverse_fourier(first_shot(model.probe).spectrum(grid)))
    seen = np.asarray(jnp.sum(jnp.abs(modes) ** 2, 0))
    sides = zip(grid.shape, grid.pixel, strict=True)
    y, x = ((np.arange(n) - n // 2) * pixel for n, pixel in sides)
    distance = np.hypot(y[:, None], x).ravel()
    order = np.argsort(distance)
    share = np.cumsum(seen.ravel()[order])
    return float(distance[order][np.searchsorted(share, INSIDE * share[-1])])


def spread_patterns(data: Dataset, radius: float) -> Dataset:
    """At most `SHOTS` patterns, spread evenly over as much of the middle of the scan as overlaps.

    Each is the one farthest from those chosen before.
    """
    away = data.positions[0] - (data.positions[0].min(0) + data.positions[0].max(0)) / 2
    side = SPACING * radius * math.sqrt(SHOTS)
    inside = np.flatnonzero(np.abs(away).max(1) <= side / 2)
    if len(inside) < SHOTS:
        inside = np.argsort(np.abs(away).max(1), kind="stable")[:SHOTS]
    places = away[inside]
    chosen = [int(np.argmin(np.hypot(*places.T)))]
    nearest = np.hypot(*(places - places[chosen[0]]).T)
    while len(chosen) < min(SHOTS, len(inside)):
        chosen.append(int(np.argmax(nearest)))
        nearest = np.minimum(nearest, np.hypot(*(places - places[chosen[-1]]).T))
    return data.subset(np.sort(inside[chosen]))


def binned_patterns(data: Dataset, radius: float) -> Dataset:
    """The patterns, binned as often as their window holds the probe and what it scatters."""
    while min(data.grid.shape) % 4 == 0 and _half_window(data) / 2 >= ROOM * radius:
        data = bin_detector(data, 2)
    return data


def _half_window(data: Dataset) -> float:
    """Half of the smaller side of the object seen by a pattern [Å]."""
    sides = zip(data.grid.shape, data.grid.pixel, strict=True)
    return min(n * pixel for n, pixel in sides) / 2


def bright_field_rotation(data: Dataset) -> float:
    """Rotation [rad] of the scan that the bright field of a weak object shows; 0 if it is unsure.

    It needs neither specimen nor probe (`start.optics`), and is far more sensitive than the steps
    where the phase is weaker than the noise of the patterns.
    """
    try:
        optics = measure_optics(data)
    except ValueError:  # no bright-field disc
        return 0.0
    shown = optics.rows()["rotation_deg"]
    straight = optics.transform in ("none", "rotate_180")  # equal but for the sign of the defocus
    known = 0 < shown.error < SURE and abs(shown.value) < FAR
    return float(np.deg2rad(shown.value)) if straight and known else 0.0


def _nominal_scan(data: Dataset, matrix: Any) -> AffineScan:
    """The positions of `data` with a map."""
    nominal = PerShot(jnp.asarray(data.positions[0], float))
    none = jnp.zeros(2)
    about = jnp.asarray(pivot(data), float)
    return AffineScan(nominal, matrix, none, none, about)
