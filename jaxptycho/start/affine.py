"""Linear map (scale, rotation, shear) between nominal and true positions, from the patterns.

A free specimen follows a wrong map: it is stretched with the scan, and the gradient by the map
vanishes although the map is wrong. The specimen is therefore moved along: with a change δ of the
map, its features move with the positions, O(r) → O((1 + δ)⁻¹ r), so that only the stretch within
each window is left, which contradicts the patterns. Gauss–Newton steps on the four numbers of δ
alternate with a few epochs of specimen and probe.

Noise must not take part in the choice. The quanta are split into two halves (by a binomial draw,
independent for Poisson counts) with a reconstruction each; residuals r of one half are weighed
with the derivatives J of the other, whose noise is independent: J₂ᵀr₁ + J₁ᵀr₂ = 0 (instrumental
variables), with JᵀJ likewise from both.

What few epochs leave of the specimen's fine detail makes the scale somewhat too small: by 0.3 % at
high dose, by 0.6 % at 10⁶ and by up to 2 % at 2·10⁴ quanta in a pattern of a scan of 12 × 12;
rotations come out to 0.1° and 0.2°. With so few shots the Cramér–Rao bound of the scale is 0.4 %
at 2·10⁴ quanta.
"""

from collections.abc import Callable
from copy import copy
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float
from scipy.ndimage import affine_transform

from ..data import Batch, Dataset, batches, make_batch
from ..data.half_sets import thinned
from ..inverse.losses import amplitude, misfit
from ..inverse.step import init_state, make_step, owned, per_part
from ..model import Model, predict
from ..parts.indexed import PerShot
from ..parts.scan import AffineScan, map_parameters
from .guess import empty_specimen

Matrix = Float[np.ndarray, "2 2"]

SHOTS = 400  # patterns in the middle of the scan that are used
FIRST, EACH, ROUNDS = 15, 3, 14  # epochs before the first step, before each other, and steps
BATCH, AT_ONCE = 32, 16  # shots of an optimiser step; patterns compared together
RATES, END = {"specimen": 2e-2, "probe": 5e-3}, 0.03  # with a cosine course
REACH = 0.15  # of the block's size, by which the specimen exceeds it
LARGEST, SETTLED = 0.03, 1e-4  # change of an element of the matrix in one step
FAINT = 0.2  # quanta, added to the variance of a pixel
FEWEST = 20  # quanta of a pattern that is used


def find_affine(
    data: Dataset,
    first: Callable[[Dataset], Model],
    seed: int = 0,
    say: Callable[[str], None] = lambda text: None,
) -> Matrix:
    """Matrix on (y, x) that brings the nominal positions of `data` to the true ones, about `pivot`.

    `first(data)` is a first model of some shots, whose probe, propagator and detector are used with
    a thin phase object. Uses the patterns in the middle of the scan of the view with most shots.
    Raises ValueError for fewer than nine patterns with counts.
    """
    view = int(np.argmax(data.n_shots))
    block = middle_of(data.view(view), SHOTS)
    steps = -(-len(block.positions[0]) // BATCH) * (FIRST + EACH * (ROUNDS - 1))
    courses = (optax.cosine_decay_schedule(rate, steps, END) for rate in RATES.values())
    optimiser = per_part(dict(zip(RATES, map(optax.adam, courses), strict=True)))
    step = make_step(misfit(amplitude), optimiser)
    halves = [thinned(block, half, seed) for half in (0, 1)]
    matrix = np.eye(2)
    models = [_start(first(half), half) for half in halves]
    states = [init_state(optimiser, model) for model in models]
    for number in range(ROUNDS):
        for n, half in enumerate(halves):
            epochs, before = (EACH, FIRST + EACH * (number - 1)) if number else (FIRST, 0)
            model, state = owned(models[n]), states[n]
            for batch in batches(half, size=BATCH, epochs=epochs, first_epoch=before, seed=2 * seed + n):
                model, state, _ = step(model, state, batch)
            models[n], states[n] = model, state
        change = np.clip(_newton_step(models, halves), -LARGEST, LARGEST)
        matrix = (np.eye(2) + change) @ matrix
        models = [_stretched(model, change, matrix) for model in models]
        if np.abs(change).max() < SETTLED:
            break
    say(f"map of the scan: {describe_map(matrix)}")
    return matrix


def describe_map(matrix: Matrix) -> str:
    """Scale, rotation and shear of a map in words."""
    y, x, shear, turn = map_parameters(matrix)
    return f"scale {y:.4f} (y), {x:.4f} (x), rotation {np.rad2deg(turn):.3f}°, shear {shear:.4f}"


def pivot(data: Dataset) -> Float[np.ndarray, "2"]:
    """Mean of the positions of all views [Å], about which a map scales and rotates."""
    return np.mean(np.concatenate(data.positions), 0)


def place_nominal(data: Dataset, matrix: Matrix) -> Dataset:
    """The same patterns at their positions through a linear map about `pivot`."""
    middle = pivot(data)
    other = copy(data)
    other.positions = [(own - middle) @ np.asarray(matrix, float).T + middle for own in data.positions]
    return other


def middle_of(data: Dataset, shots: int) -> Dataset:
    """The patterns of one view nearest to the middle of the scan, in whole quanta, at most `shots`."""
    positions = data.positions[0]
    middle = (positions.min(0) + positions.max(0)) / 2
    usable = np.flatnonzero(data.dose() >= FEWEST)
    if len(usable) < 9:
        raise ValueError(
            f"{len(usable)} patterns have at least {FEWEST} counts; the map of a scan requires nine "
            'that overlap (scan.kind = "free" asks for none)'
        )
    distance = np.abs(positions[usable] - middle).max(1)
    chosen = np.sort(usable[np.argsort(distance, kind="stable")[:shots]])
    counts = np.rint(np.fft.fftshift(data.patterns(0, chosen), axes=(1, 2))).astype(np.uint32)
    extras = data.mask, None, data.probe_guess, dict(data.about)
    return Dataset(counts, positions[chosen], data.grid, *extras, frame=data.frame, bad_data="keep")


def _start(model: Model, data: Dataset) -> Model:
    """A thin phase object under the scan and around it, with the positions through the identity."""
    wide = place_nominal(data, (1 + REACH) * np.eye(2))
    specimen = empty_specimen(wide, model.grid, "phase", 1, None, None, False)
    nominal = PerShot(jnp.asarray(data.positions[0], float))
    scan = AffineScan(nominal, jnp.eye(2), jnp.zeros(2), jnp.zeros(2), jnp.asarray(pivot(data), float))
    return replace(model, specimen=specimen, scan=scan)


def _newton_step(models: list[Model], halves: list[Dataset]) -> Matrix:
    """Change δ of the map by one Gauss–Newton step."""
    n = len(halves[0].positions[0])
    score, normal = np.zeros(4), np.zeros((4, 4))
    for shots in np.array_split(np.arange(n), -(-n // AT_ONCE)):
        both = [make_batch(half, 0, shots, size=AT_ONCE) for half in halves]
        more = [np.asarray(one, float) for one in _products(models, both)]
        score, normal = score + more[0], normal + more[1]
    size, axes = np.linalg.eigh(normal)
    inverse = axes / np.maximum(size, 1e-3 * size.max()) @ axes.T
    return -(inverse @ score).reshape(2, 2)


@eqx.filter_jit
def _products(models: list[Model], halves: list[Batch]) -> tuple[Float[Array, "4"], Float[Array, "4 4"]]:
    """J₂ᵀr₁ + J₁ᵀr₂ and J₁ᵀJ₂ + J₂ᵀJ₁, weighed by the variance that the other half expects."""

    def of_half(model, batch):
        def expected(change):
            return predict(_moved_along(model, change.reshape(2, 2)), batch.shots).ravel()

        counts, slope = jax.linearize(expected, jnp.zeros(4))
        weight = jnp.broadcast_to(batch.weight[:, None, None], batch.counts.shape).ravel()
        residual = weight * (counts - batch.counts.astype(counts.dtype).ravel())
        return residual, weight * jax.vmap(slope)(jnp.eye(4)), 1 / (counts + FAINT)

    (r, slopes, weight), (r2, slopes2, weight2) = map(of_half, models, halves)
    normal = (slopes * jnp.sqrt(weight * weight2)) @ slopes2.T
    return (slopes2 * weight2) @ r + (slopes * weight) @ r2, normal + normal.T


def _parts(model: Model) -> tuple[Any, Any]:
    """The phase object and the affine scan of `_start`."""
    return model.specimen, model.scan


def _moved_along(model: Model, change: Float[Array, "2 2"]) -> Model:
    """The model with positions and specimen moved by 1 + `change` about the pivot, to first order."""
    specimen, scan = _parts(model)
    phase, pixel = specimen.phase[0], jnp.asarray(model.grid.pixel)
    pixels = jnp.stack(jnp.meshgrid(*map(jnp.arange, phase.shape), indexing="ij"), -1)
    away = pixels * pixel + specimen.origin - scan.pivot
    y, x = jnp.moveaxis(-(away @ change.T) / pixel, -1, 0)  # where each pixel comes from
    spectrum = jnp.fft.fft2(phase)
    ky, kx = (2j * jnp.pi * jnp.fft.fftfreq(n) for n in phase.shape)
    slopes = [jnp.fft.ifft2(k * spectrum).real for k in (ky[:, None], kx[None, :])]
    specimen = replace(specimen, phase=(phase + slopes[0] * y + slopes[1] * x)[None])
    scan = replace(scan, matrix=(jnp.eye(2) + change) @ scan.matrix)
    return replace(model, specimen=specimen, scan=scan)


def _stretched(model: Model, change: Matrix, matrix: Matrix) -> Model:
    """The model with `matrix` in its scan, its specimen resampled by 1 + `change` about the pivot."""
    specimen, scan = _parts(model)
    pixel, origin = np.asarray(model.grid.pixel), np.asarray(specimen.origin, float)
    back = np.linalg.inv(np.eye(2) + change) * pixel / pixel[:, None]
    middle = (np.asarray(scan.pivot, float) - origin) / pixel
    old = np.asarray(specimen.phase[0])
    phase = affine_transform(old, back, middle - back @ middle, order=3)  # pyright: ignore
    specimen = replace(specimen, phase=jnp.asarray(phase[None], specimen.phase.dtype))
    return replace(model, specimen=specimen, scan=replace(scan, matrix=jnp.asarray(matrix, float)))
