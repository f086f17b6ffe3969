"""Linear map (scale, rotation, shear) between nominal and true positions, from the patterns.

A free specimen follows a wrong map: it is stretched with the scan, and the gradient with respect
to the map vanishes although the map is wrong. Specimen, probe and map are therefore solved for
together, by Gauss–Newton steps with the Fisher weights 1/M of the expected counts M: each step
minimises Σ (I − M − J v)²/M + penalty over a change v of all unknowns, by preconditioned
conjugate gradients. Two things make these steps few:

- The specimen moves along. With a change δ of the map its features move with the positions,
  O(r) → O((1 + δ)⁻¹ r): δ alters only the stretch within each window, which the patterns
  contradict, and is almost uncorrelated with the specimen.
- The specimen has a prior, a Gaussian random phase of spectrum ∝ (k₀² + k²)⁻² with the variance
  of the present estimate. It keeps noise out of the fine detail that the patterns hardly
  determine; without it scales come out too large at a low dose, by 0.5 % at 10⁵ quanta.

Errors on simulated scans (2…4 % and 1…3°, 48 × 48 pixels) beside the Cramér–Rao bound with an
unknown specimen and probe, which falls as 1/√(quanta · patterns):

    quanta    patterns  scales         shear          rotation
    10⁶       144       0.07 (0.04) %  0.08 (0.06) %  0.04 (0.02)°
    10⁵       144       0.2 (0.14) %   0.4 (0.2) %    0.12 (0.07)°
    2·10⁴     400       0.3 (0.2) %    0.4 (0.3) %    0.23 (0.1)°
    2·10⁴     144       0.5 (0.3) %    0.7 (0.4) %    0.14 (0.15)°

A map of 8 % and 6° was found to 0.6 % in twelve steps. Of patterns of 128 × 128 pixels only 100 are
used, which can be too few: of 3 % and 2° of a simulated bilayer the rotation was found to 0.1° and
hardly any of the scale in seven steps, and of 5° in a measured scan at low dose hardly any.
"""

import warnings
from collections.abc import Callable
from copy import copy
from dataclasses import replace
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.ndimage import affine_transform

from ..data import Dataset
from ..inverse.illumination import illumination
from ..model import Model, predict
from ..parts.indexed import PerShot, first_shot
from ..parts.probe import PixelProbe
from ..parts.scan import AffineScan, map_parameters
from ..physics import waves
from .guess import empty_specimen

Matrix = Float[np.ndarray, "2 2"]
Image = Float[Array, "Y X"]

SHOTS = (100, 400)  # fewest and most patterns used
PIXELS = 2**20  # largest number of pixels of all patterns used
MIN_QUANTA = 20  # of a pattern that is used
REACH = 0.15  # of the block's size, by which the specimen exceeds it
FIXED_STEPS = 4  # steps with a fixed map
MAX_STEPS = 16  # of the map
MAX_SEARCHES = 100  # of the conjugate gradients of one step
TOLERANCE = 1e-3  # of the conjugate gradients
MAX_CHANGE = 0.03  # of an element of the matrix in one step
SETTLED = 1.5e-4  # change of an element of the matrix in the last step
FAINT = 0.1  # quanta, added to the variance of a pixel
MIN_DEVIATION = 0.05  # rad, of the prior
BEND = 2.0  # k₀ of the prior [periods in a window]


class Unknowns(NamedTuple):
    """Changes of all that a step solves for."""

    phase: Image  # rad
    waves: Float[Array, "2 m y x"]  # real and imaginary part [√quanta]
    change: Float[Array, "4"]  # of the map, row by row


def find_affine(
    data: Dataset,
    first: Callable[[Dataset], Model],
    say: Callable[[str], None] = lambda text: None,
) -> Matrix:
    """Matrix on (y, x) that brings the nominal positions of `data` to the true ones, about `pivot`.

    `first(data)` is a first model of some shots, whose probe, propagator and detector are used with
    a thin phase object. Uses the patterns in the middle of the scan of the view with most shots.
    Warns where the map still changes after the last step. Raises ValueError for fewer than nine
    patterns with counts.
    """
    view = int(np.argmax(data.n_shots))
    block = central_patterns(data.view(view))
    counts = jnp.asarray(block.patterns(0, np.arange(block.n_shots[0])), float)
    matrix = _refined(_start(first(block), block), counts)
    say(f"map of the scan: {describe_map(matrix)}")
    return matrix


def _refined(model: Model, counts: Float[Array, "n y x"]) -> Matrix:
    """The map after steps until no element of the matrix changes by more than `SETTLED`."""
    change = np.zeros((2, 2))
    for number in range(FIXED_STEPS + MAX_STEPS):
        free = number >= FIXED_STEPS
        step = _newton_step(model, counts, jnp.asarray(free, float))
        change = np.clip(np.asarray(step.change, float).reshape(2, 2), -MAX_CHANGE, MAX_CHANGE)
        model = _stretched(_added(model, step), change)
        if free and np.abs(change).max() < SETTLED:
            break
    else:
        warnings.warn(
            f"the map of the scan still changes by {np.abs(change).max():.2g} a step after "
            f"{MAX_STEPS} steps and may be wrong; compare the verdict with that of scan.kind = "
            "'free', or give positions nearer to the true ones",
            stacklevel=2,
        )
    return np.asarray(_parts(model)[2].matrix, float)


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
    other.positions = [
        (own - middle) @ np.asarray(matrix, float).T + middle for own in data.positions
    ]
    return other


def central_patterns(data: Dataset) -> Dataset:
    """The patterns of one view in the middle of the scan, as many as `SHOTS` and `PIXELS` allow."""
    positions = data.positions[0]
    middle = (positions.min(0) + positions.max(0)) / 2
    usable = np.flatnonzero(data.dose() >= MIN_QUANTA)
    if len(usable) < 9:
        raise ValueError(
            f"{len(usable)} patterns have at least {MIN_QUANTA} counts; the map of a scan requires "
            'nine that overlap (scan.kind = "free" asks for none)'
        )
    distance = np.abs(positions[usable] - middle).max(1)
    shots = int(np.clip(PIXELS // np.prod(data.grid.shape), *SHOTS))
    return data.subset(usable[np.argsort(distance, kind="stable")[:shots]])


def _start(model: Model, data: Dataset) -> Model:
    """An empty phase object under the scan and around it, free waves, and the identity as map."""
    wide = place_nominal(data, (1 + REACH) * np.eye(2))
    specimen = empty_specimen(wide, model.grid, "phase", [0.0], None, False)
    nominal = PerShot(jnp.asarray(data.positions[0], float))
    middle = jnp.asarray(pivot(data), float)
    none = jnp.zeros(2)
    scan = AffineScan(nominal, jnp.eye(2), none, none, middle)
    modes = waves.inverse_fourier(first_shot(model.probe).spectrum(model.grid))
    probe = PixelProbe(jnp.fft.fftshift(modes, axes=(-2, -1)))
    return replace(model, probe=probe, specimen=specimen, scan=scan)


@eqx.filter_jit
def _newton_step(model: Model, counts: Float[Array, "n y x"], free: Float[Array, ""]) -> Unknowns:
    """Gauss–Newton step of all unknowns, of the map where `free` is 1."""
    specimen, probe, _ = _parts(model)
    modes = probe.waves
    phase = specimen.phase[0]
    none = Unknowns(jnp.zeros_like(phase), jnp.zeros((2, *modes.shape)), jnp.zeros(4))
    shots = jnp.arange(len(counts))
    expected, slope = jax.linearize(lambda v: predict(_moved_along(model, v), shots), none)
    root = 1 / jnp.sqrt(expected + FAINT)
    of_map = jax.vmap(lambda change: root * slope(none._replace(change=change)))(jnp.eye(4))

    illuminated = illumination(model)
    precision = _precision(model, illuminated)
    seen = 4 * jnp.max(illuminated)  # 4|ψ|²: information of a phase
    units = Unknowns(
        1 / jnp.sqrt(seen),
        0.5 / jnp.sqrt(len(counts)),
        free / jnp.sqrt(jnp.sum(of_map**2, (1, 2, 3))),
    )

    def push(v: Unknowns) -> Array:
        return root * slope(jax.tree.map(jnp.multiply, units, v))

    def pull(residual: Array) -> Unknowns:
        return jax.linear_transpose(push, none)(residual)[0]

    def normal(v: Unknowns) -> Unknowns:
        back = pull(push(v))
        return back._replace(phase=back.phase + _filtered(precision / seen, v.phase))

    def preconditioned(v: Unknowns) -> Unknowns:
        return v._replace(phase=_filtered(1 / (0.5 + precision / seen), v.phase))

    slopes = pull(root * (counts - expected))
    prior = units.phase * _filtered(precision, phase)
    slopes = slopes._replace(phase=slopes.phase - prior)
    found, _ = jax.scipy.sparse.linalg.cg(
        normal, slopes, M=preconditioned, tol=TOLERANCE, maxiter=MAX_SEARCHES
    )
    return jax.tree.map(jnp.multiply, units, found)


def _precision(model: Model, intensity: Image) -> Image:
    """Inverse spectrum [1/rad²] of the prior, with the variance of the illuminated phase."""
    phase = _parts(model)[0].phase[0]
    variance = jnp.maximum(
        jnp.var(phase, where=intensity > 0.5 * jnp.max(intensity)), MIN_DEVIATION**2
    )
    sides = zip(phase.shape, model.grid.pixel, model.grid.dk, strict=True)
    ky, kx = (jnp.fft.fftfreq(n, pixel) / (BEND * dk) for n, pixel, dk in sides)
    inverse = (1 + ky[:, None] ** 2 + kx**2) ** 2
    return inverse * jnp.mean(1 / inverse) / variance


def _filtered(factor: Image, image: Image) -> Image:
    """The image with its spectrum multiplied by a factor."""
    return jnp.fft.ifft2(factor * jnp.fft.fft2(image)).real


def _parts(model: Model) -> tuple[Any, Any, Any]:
    """The phase object, the free waves and the affine scan of `_start`."""
    return model.specimen, model.probe, model.scan


def _added(model: Model, step: Unknowns) -> Model:
    """The model with its phase and waves changed."""
    specimen, probe, _ = _parts(model)
    specimen = replace(specimen, phase=specimen.phase + step.phase)
    probe = replace(probe, waves=probe.waves + jax.lax.complex(*step.waves))
    return replace(model, specimen=specimen, probe=probe)


def _moved_along(model: Model, step: Unknowns) -> Model:
    """The model with all unknowns changed; the map, to first order, moves the specimen along."""
    model = _added(model, step)
    specimen, _, scan = _parts(model)
    phase = specimen.phase[0]
    pixel = jnp.asarray(model.grid.pixel)
    change = step.change.reshape(2, 2)
    pixels = jnp.stack(jnp.meshgrid(*map(jnp.arange, phase.shape), indexing="ij"), -1)
    away = pixels * pixel + specimen.origin - scan.pivot
    y, x = jnp.moveaxis(-(away @ change.T) / pixel, -1, 0)  # where each pixel comes from
    spectrum = jnp.fft.fft2(phase)
    ky, kx = (2j * jnp.pi * jnp.fft.fftfreq(n) for n in phase.shape)
    slopes = [jnp.fft.ifft2(k * spectrum).real for k in (ky[:, None], kx[None, :])]
    specimen = replace(specimen, phase=(phase + slopes[0] * y + slopes[1] * x)[None])
    scan = replace(scan, matrix=(jnp.eye(2) + change) @ scan.matrix)
    return replace(model, specimen=specimen, scan=scan)


def _stretched(model: Model, change: Matrix) -> Model:
    """The model with 1 + `change` applied to its map, the specimen resampled about the pivot."""
    specimen, _, scan = _parts(model)
    pixel = np.asarray(model.grid.pixel)
    origin = np.asarray(specimen.origin, float)
    back = np.linalg.inv(np.eye(2) + change) * pixel / pixel[:, None]
    middle = (np.asarray(scan.pivot, float) - origin) / pixel
    old = np.asarray(specimen.phase[0])
    phase = affine_transform(old, back, middle - back @ middle, order=5)  # pyright: ignore
    matrix = (np.eye(2) + change) @ np.asarray(scan.matrix, float)
    specimen = replace(specimen, phase=jnp.asarray(phase[None], specimen.phase.dtype))
    return replace(model, specimen=specimen, scan=replace(scan, matrix=jnp.asarray(matrix, float)))
