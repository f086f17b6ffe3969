"""Constraints of the specimen: builders of `project(model) -> model`, see `constraints`."""

from collections.abc import Callable
from dataclasses import replace

import jax.numpy as jnp
from jaxtyping import Array

from ...model import Model
from ...physics.grids import plane_frequencies
from ...physics.types import Stack
from . import filters


def amplitude_clamp(lowest: float = 0.0, highest: float = 1.0) -> Callable[[Model], Model]:
    """Limit |t| to [lowest, highest] by the absorption; matter does not amplify, |t| ≤ 1.

    In a weak-phase specimen |t| is 1 − a, to first order.
    """
    if not 0 <= lowest <= highest or highest == 0:
        raise ValueError(
            f"got amplitudes from {lowest} to {highest}; give 0 ≤ lowest ≤ highest, and highest > 0"
        )

    def project(model: Model) -> Model:
        return replace(model, specimen=model.specimen.clamp_amplitude(model.grid, lowest, highest))

    return project


def positivity() -> Callable[[Model], Model]:
    """Limit phase or potential to ≥ 0: atoms attract electrons (the sign for photons is opposite).

    For a specimen made of atoms, occupancies and Debye–Waller factors ≥ 0.
    """
    return lambda model: replace(model, specimen=model.specimen.nonnegative())


def identical_slices() -> Callable[[Model], Model]:
    """Replace every slice by the mean of all: a crystal along a zone axis, or a first guess."""

    def mean(stack: Stack) -> Stack:
        return jnp.broadcast_to(jnp.mean(stack, axis=0), stack.shape)

    return lambda model: _map_stacks(model, mean)


def vacuum_surfaces(first: int = 1, last: int = 1) -> Callable[[Model], Model]:
    """Empty the `first` slices at the entrance face and the `last` slices at the exit face."""

    def empty(stack: Stack) -> Stack:
        n = stack.shape[0]
        if min(first, last) < 0 or first + last >= n:
            raise ValueError(
                f"cannot empty {first} + {last} of {n} slices; leave at least one for the specimen"
            )
        inside = (jnp.arange(n) >= first) & (jnp.arange(n) < n - last)
        return jnp.where(inside[:, None, None], stack, 0)

    return lambda model: _map_stacks(model, empty)


def gaussian_in_plane(sigma_angstrom: float) -> Callable[[Model], Model]:
    """Blur every slice by a Gaussian of standard deviation `sigma_angstrom`, periodic at edges."""

    def project(model: Model) -> Model:
        ky, kx = _plane(model)
        transfer = filters.gaussian_transfer(ky**2 + kx**2, sigma_angstrom)
        return _map_stacks(model, lambda stack: filters.filter_in_plane(stack, transfer))

    return project


def gaussian_along_z(sigma_angstrom: float) -> Callable[[Model], Model]:
    """Blur the stack along z by a Gaussian, mirrored at its faces; the sum over slices is kept."""

    def project(model: Model) -> Model:
        specimen = model.specimen
        kz = filters.depth_frequencies(specimen.stack().shape[0], specimen.spacing(model.grid))
        transfer = filters.gaussian_transfer(kz**2, sigma_angstrom)
        return _map_stacks(model, lambda stack: filters.filter_along_z(stack, transfer))

    return project


def low_pass(cutoff_inverse_angstrom: float) -> Callable[[Model], Model]:
    """Remove the frequencies of every slice beyond the cut-off."""

    def project(model: Model) -> Model:
        ky, kx = _plane(model)
        transfer = (ky**2 + kx**2 <= cutoff_inverse_angstrom**2).astype(ky.dtype)
        return _map_stacks(model, lambda stack: filters.filter_in_plane(stack, transfer))

    return project


def missing_cone_filter(semiangle_mrad: float) -> Callable[[Model], Model]:
    """Multiply the stack's spectrum by W(k) of `filters.measurable`.

    This damps the frequencies that a view of this semiangle cannot measure; the sum over slices
    is unchanged.
    """

    def project(model: Model) -> Model:
        model.specimen.require_fixed_beam()
        specimen = model.specimen
        shape = specimen.stack().shape
        spacing = specimen.spacing(model.grid)
        transfer = filters.measurable(shape, model.grid.pixel, spacing, 1e-3 * semiangle_mrad)
        return _map_stacks(model, lambda stack: filters.filter_volume(stack, transfer))

    return project


def _map_stacks(model: Model, function: Callable[[Stack], Stack]) -> Model:
    return replace(model, specimen=model.specimen.map_stacks(function))


def _plane(model: Model) -> tuple[Array, Array]:
    return plane_frequencies(model.specimen.stack().shape[1:], model.grid.pixel)
