"""Constraints of the frequencies of every slice: bands that pass, and lines that do not."""

from collections.abc import Callable
from dataclasses import replace

import jax.numpy as jnp
from jaxtyping import Array, Float

from ...model import Model
from ...physics.grids import plane_frequencies
from . import filters


def butterworth(
    highest_inverse_angstrom: float | None = None,
    lowest_inverse_angstrom: float | None = None,
    order: int = 2,
) -> Callable[[Model], Model]:
    """Band-pass 1/(1 + (k/k_high)^2n) · (1 − 1/(1 + (k/k_low)^2n)) of order n (Butterworth 1930).

    The mean of every slice, k = 0, is kept.
    """
    given = [k for k in (lowest_inverse_angstrom, highest_inverse_angstrom) if k is not None]
    if not given or min(given) <= 0 or given != sorted(given) or order < 1:
        raise ValueError(
            f"a Butterworth filter from {lowest_inverse_angstrom} to {highest_inverse_angstrom} "
            f"1/Å of order {order}; give one or both cut-offs, 0 < lowest < highest, and an order "
            "of at least 1"
        )

    def fall(k: Float[Array, "y f"], cutoff: float) -> Float[Array, "y f"]:
        return 1 / (1 + (k / cutoff) ** (2 * order))

    def project(model: Model) -> Model:
        ky, kx = plane_frequencies(model.specimen.stack().shape[1:], model.grid.pixel)
        k = jnp.hypot(ky, kx)
        transfer = jnp.ones_like(k)
        if highest_inverse_angstrom is not None:
            transfer = transfer * fall(k, highest_inverse_angstrom)
        if lowest_inverse_angstrom is not None:
            transfer = transfer * (1 - fall(k, lowest_inverse_angstrom))
        return _filtered(model, transfer.at[0, 0].set(1.0))

    return project


def grid_artefact_removal(
    step_y_angstrom: float,
    step_x_angstrom: float,
    width_inverse_angstrom: float,
    highest_order: int = 3,
) -> Callable[[Model], Model]:
    """Remove the periods of a raster scan from every slice: a notch at each of its frequencies.

    A raster of steps (s_y, s_x) and its errors print a pattern of the frequencies (n/s_y, m/s_x)
    onto the specimen (Thibault et al., Ultramicroscopy 109, 338 (2009), who avoid it by another
    scan). Each notch is 1 − exp(−2 Δk²/w²), w the `width`, with |n|, |m| ≤ `highest_order`. A
    crystal whose lattice has these periods would be removed as well.
    """
    if min(step_y_angstrom, step_x_angstrom, width_inverse_angstrom, highest_order) <= 0:
        raise ValueError("give positive steps [Å], width [1/Å] and highest order of a scan's grid")

    def project(model: Model) -> Model:
        ky, kx = plane_frequencies(model.specimen.stack().shape[1:], model.grid.pixel)

        def distance(k: Array, step: float) -> Array:
            nearest = jnp.clip(jnp.round(k * step), -highest_order, highest_order)
            return k - nearest / step

        away = distance(ky, step_y_angstrom) ** 2 + distance(kx, step_x_angstrom) ** 2
        notch = 1 - jnp.exp(-2 * away / width_inverse_angstrom**2)
        origin = ky**2 + kx**2 < (0.5 / max(step_y_angstrom, step_x_angstrom)) ** 2
        return _filtered(model, jnp.where(origin, 1.0, notch))

    return project


def _filtered(model: Model, transfer: Float[Array, "y f"]) -> Model:
    def change(stack: Array) -> Array:
        return filters.filter_in_plane(stack, transfer)

    return replace(model, specimen=model.specimen.map_stacks(change))
