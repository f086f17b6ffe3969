"""Constraints in all three dimensions: builders of `project(model) -> model`, see `constraints`.

For a volume that rotates, and for a stack of slices thin enough to resolve depth.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Array, Float, Int

from ...model import Model
from ...physics.types import Scalar, Stack
from ..least_squares import fit_linear
from . import filters

Lengths = tuple[float, float, float]


def support(
    model: Model, blur_angstrom: float, threshold: float = 0.1, edge_angstrom: float = 1.0
) -> Callable[[Model], Model]:
    """Empty the volume outside the support of `model`, its blurred phase or potential.

    The support is where the phase or potential of `model`, blurred by a Gaussian of standard
    deviation `blur_angstrom`, exceeds the fraction `threshold` of its maximum; beyond it the mask
    falls over `edge_angstrom` (Marchesini et al., Phys. Rev. B 68, 140101 (2003)).
    """
    volume = np.asarray(model.specimen.stack(), float)
    mask = jnp.asarray(support_mask(volume, _voxel(model), blur_angstrom, threshold, edge_angstrom))
    return lambda model: _map_stacks(model, lambda stack: mask * stack)


def support_mask(
    volume: Float[np.ndarray, "z y x"], voxel: Lengths, blur: float, threshold: float, edge: float
) -> Float[np.ndarray, "z y x"]:
    """Mask of the volume blurred by `blur` [Å], above `threshold` times its maximum.

    1 inside; it falls to 0 over `edge` [Å].
    """
    if not 0 < threshold < 1 or blur < 0 or edge < 0:
        raise ValueError(
            f"a support of threshold {threshold}, blur {blur} Å and edge {edge} Å; give a "
            "threshold between 0 and 1, and lengths that are not negative"
        )
    blurred = scipy.ndimage.gaussian_filter(
        volume, [blur / step for step in voxel], mode="constant"
    )
    if not blurred.max() > 0:
        raise ValueError(
            "a support of an empty specimen; start from one that was reconstructed at low "
            "resolution"
        )
    distance = scipy.ndimage.distance_transform_edt(
        blurred < threshold * blurred.max(), sampling=voxel
    )
    return np.asarray(filters.below(jnp.asarray(distance), edge / 2, edge))


def low_pass_volume(
    cutoff_inverse_angstrom: float, edge_inverse_angstrom: float = 0.0
) -> Callable[[Model], Model]:
    """Remove frequencies |k| beyond the cut-off, with a soft edge around it.

    A sequence of growing cut-offs, each for some epochs, extends the specimen in Fourier space
    shell by shell; `preconditioning.shell_growth` does the same step by step.
    """

    def project(model: Model) -> Model:
        specimen = model.specimen
        shape = specimen.stack().shape
        spacing = specimen.spacing(model.grid)
        k = filters.volume_frequency(shape, model.grid.pixel, spacing)
        transfer = filters.below(k, cutoff_inverse_angstrom, edge_inverse_angstrom)
        return _map_stacks(model, lambda stack: filters.filter_volume(stack, transfer))

    return project


def atomicity(
    model: Model,
    atoms: int,
    distance_angstrom: float,
    strength: float = 1.0,
    sigma_angstrom: float | None = None,
) -> Callable[[Model], Model]:
    """Replace the phase or potential by round Gaussians at its `atoms` highest maxima.

    A maximum is the highest value within `distance_angstrom`. Its position, width and height are
    fitted, and it becomes a Gaussian of the same integral and of a common width:
    `sigma_angstrom`, or the median width along the axis where peaks are sharpest. Peaks that a
    missing wedge elongates become round again. `strength` is the weight of the replacement: weak
    atoms without a maximum are lost at 1 and only damped at lower values.
    """
    if atoms < 1 or not 0 < strength <= 1:
        raise ValueError(
            f"{atoms} atoms with a strength of {strength}; give at least one, and 0 < strength ≤ 1"
        )
    voxel = _voxel(model)

    def change(stack: Stack) -> Stack:
        found = atoms_in(stack, voxel, atoms, distance_angstrom)
        sigma = jnp.min(found.usual) if sigma_angstrom is None else sigma_angstrom
        return stack + strength * (round_gaussians(found, sigma, stack.shape, voxel) - stack)

    return lambda model: _map_stacks(model, change, ("phase",))


class Found(NamedTuple):
    """Gaussians fitted to the highest maxima of a volume; missing ones have integral 0."""

    places: Float[Array, "atom 3"]  # Å from the first voxel (z, y, x)
    integral: Float[Array, " atom"]  # of the volume's unit × Å³
    usual: Float[Array, "3"]  # Å, the median width along every axis


@partial(jax.jit, static_argnames=("voxel", "atoms", "distance"))
def atoms_in(volume: Stack, voxel: Lengths, atoms: int, distance: float) -> Found:
    """The `atoms` highest maxima, each the highest value within `distance` [Å].

    The logarithm of a Gaussian is a parabola, fitted by least squares within half the distance
    with the weight V² for uniform noise of V (Guo, IEEE Signal Process. Mag. 28, 134 (2011)):
    exact for an isolated Gaussian.
    """
    highest = volume
    for axis, step in enumerate(voxel):
        window = [1, 1, 1]
        window[axis] = 1 + 2 * max(1, int(distance / (math.sqrt(3) * step)))
        highest = jax.lax.reduce_window(highest, -jnp.inf, jax.lax.max, window, (1, 1, 1), "SAME")
    maxima = jnp.where((volume == highest) & (volume > 0), volume, 0)
    height, number = jax.lax.top_k(maxima.ravel(), min(atoms, volume.size))
    index = jnp.stack(jnp.unravel_index(number, volume.shape), -1)
    centre, sigma, top = _parabolas(volume, index, height, voxel, distance / 2)
    usual = jnp.nan_to_num(jnp.nanmedian(sigma, axis=0), nan=min(voxel))
    sigma = jnp.where(jnp.isnan(sigma), usual, sigma)
    integral = top * jnp.prod(math.sqrt(2 * math.pi) * sigma, axis=1)
    return Found((index + centre) * jnp.asarray(voxel, volume.dtype), integral, usual)


@partial(jax.jit, static_argnames=("shape", "voxel"))
def round_gaussians(found: Found, sigma: Scalar, shape: tuple[int, ...], voxel: Lengths) -> Stack:
    """Volume of round Gaussians of standard deviation `sigma` [Å], as products of profiles."""
    profiles = []
    for place, n, step in zip(found.places.T, shape, voxel, strict=True):
        away = (jnp.arange(n, dtype=place.dtype) * step - place[:, None]) / sigma
        profiles.append(jnp.exp(-(away**2) / 2) / (math.sqrt(2 * math.pi) * sigma))
    depth, rows, columns = profiles

    def plane(part: Float[Array, " atom"]) -> Float[Array, "y x"]:
        return jnp.matmul(((found.integral * part)[:, None] * rows).T, columns, precision="highest")

    return jax.lax.map(plane, depth.T)


def _parabolas(
    volume: Stack,
    index: Int[Array, "atom 3"],
    height: Float[Array, " atom"],
    voxel: Lengths,
    radius: float,
) -> tuple[Float[Array, "atom 3"], Float[Array, "atom 3"], Float[Array, " atom"]]:
    """Centres [voxels from `index`], σ [Å, NaN without a maximum], heights of parabolas log V."""
    half = [max(1, round(radius / step)) for step in voxel]
    shape = [2 * h + 1 for h in half]
    steps = np.indices(shape).reshape(3, -1).T - half
    near = np.sum((steps / np.maximum(half, radius / np.array(voxel))) ** 2, 1) <= 1 + 1e-6
    powers = np.concatenate([np.ones((len(steps), 1)), steps, steps**2], 1)
    terms = jnp.asarray(powers.T, volume.dtype)
    padded = jnp.pad(volume, [(h, h) for h in half])

    def fit(first: Int[Array, "3"], own: Float[Array, ""]) -> Float[Array, "7"]:
        value = jax.lax.dynamic_slice(padded, first, shape).ravel() / jnp.where(own > 0, own, 1)
        weight = jnp.where(near & (value > 0), value, 0) ** 2
        return fit_linear(terms, jnp.log(jnp.maximum(value, 1e-6)), weight, 1e-6)

    log, slope, bend = jnp.split(jax.vmap(fit)(index, height), [1, 4], axis=1)
    peaked = (bend < -1e-3) & (jnp.abs(slope) < -2 * bend)  # with its maximum within a voxel
    bend = jnp.where(peaked, bend, -1.0)
    centre = jnp.where(peaked, -slope / (2 * bend), 0)
    sigma = jnp.where(
        peaked & (height > 0)[:, None], jnp.sqrt(-1 / (2 * bend)) * jnp.asarray(voxel), jnp.nan
    )
    rise = jnp.sum(jnp.where(peaked, -(slope**2) / (4 * bend), 0), axis=1)
    return centre, sigma, height * jnp.exp(log[:, 0] + rise)


def _voxel(model: Model) -> Lengths:
    """Voxel of the specimen (z, y, x) [Å]."""
    return float(model.specimen.spacing(model.grid)), *model.grid.pixel


def _map_stacks(model: Model, *change: Any) -> Model:
    return replace(model, specimen=model.specimen.map_stacks(*change))
