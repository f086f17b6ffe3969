"""Penalties: prior knowledge of a specimen or probe, as a term added to the loss.

A penalty is any `penalty(model) -> scalar`. The functions here build such closures from plain
keyword numbers; `PENALTIES` lists them by the names that job files use, and their annotated
signatures define the keys with their types and defaults (keys without default are required).

`weight` is in quanta per shot, as the loss is: the penalty of a phase of 1 rad (for L1, L2 and
W(k)), or of steps of 1 rad between neighbours, throughout one slice. It is summed over slices and
averaged over the pixels of a plane, so the meaning of a weight depends neither on the field of
view nor on the batch size. A potential is converted to radians per slice of mean thickness; an
absorption is −ln|t|.
"""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from ..model import Model
from ..parts.slices import Of, require_depth
from ..physics.types import Stack
from .constraints import filters
from .probe_penalties import probe_smoothness, probe_spectrum_smoothness

Penalty = Callable[[Model], jax.Array | float]
Along = Literal["plane", "z", "volume"]
AXES = {"plane": (1, 2), "z": (0,), "volume": (0, 1, 2)}


def sum_of(*penalties: Penalty) -> Penalty:
    """The sum of several penalties."""
    return lambda model: sum((penalty(model) for penalty in penalties), 0.0)


def l1(weight: float, of: Of = "phase") -> Penalty:
    """Penalty Σ|φ|: sparse specimens, empty between their atoms (Tibshirani 1996)."""
    return lambda model: weight * per_pixel(jnp.abs(model.specimen.phase_per_slice(model.grid, of)))


def l2(weight: float, of: Of = "phase") -> Penalty:
    """Penalty Σφ²: small values (Tikhonov 1963)."""
    return lambda model: weight * per_pixel(model.specimen.phase_per_slice(model.grid, of) ** 2)


def total_variation(
    weight: float, along: Along = "plane", of: Of = "phase", smooth: float = 1e-2
) -> Penalty:
    """Penalty Σ √(|∇φ|² + s²) − s: flat areas with sharp edges (Rudin, Osher & Fatemi 1992).

    Steps below `smooth` [rad] count quadratically (Vogel & Oman 1996). For "volume" the weight is
    isotropic: steps along z are scaled to the distance of a pixel.
    """

    if smooth <= 0:
        raise ValueError(
            f"smooth is {smooth}; give a positive step [rad], below which edges are rounded"
        )

    def penalty(model: Model) -> jax.Array:
        steps2 = squared_steps(model, of, along)
        return weight * per_pixel(jnp.sqrt(steps2 + smooth**2) - smooth)

    return penalty


def tikhonov(weight: float, along: Along = "plane", of: Of = "phase") -> Penalty:
    """Penalty Σ|∇φ|²: smooth specimens (Tikhonov 1963)."""
    return lambda model: weight * per_pixel(squared_steps(model, of, along))


def missing_cone(weight: float, semiangle_mrad: float, of: Of = "phase") -> Penalty:
    """Penalty ‖√(1−W)·Fφ‖², W(k) of `filters.measurable`: damping of unmeasured frequencies.

    The soft form of `constraints.missing_cone_filter`; the sum over slices is not penalised.
    """

    def penalty(model: Model) -> jax.Array:
        model.specimen.require_fixed_beam()
        phase = model.specimen.phase_per_slice(model.grid, of)
        spacing = model.specimen.spacing(model.grid)
        kept = filters.measurable(phase.shape, model.grid.pixel, spacing, 1e-3 * semiangle_mrad)
        return weight * per_pixel(phase * filters.filter_volume(phase, 1 - kept))

    return penalty


PENALTIES: dict[str, Callable[..., Penalty]] = {
    builder.__name__: builder
    for builder in (
        l1,
        l2,
        total_variation,
        tikhonov,
        missing_cone,
        probe_smoothness,
        probe_spectrum_smoothness,
    )
}


def per_pixel(price: Stack) -> jax.Array:
    """Sum over slices, averaged over the pixels of a plane."""
    return jnp.sum(price) / (price.shape[-2] * price.shape[-1])


def squared_steps(model: Model, of: Of, along: Along) -> Stack:
    """Squared gradient |∇φ|² [rad²] from forward differences, zero at the far edge."""
    stack = model.specimen.phase_per_slice(model.grid, of)
    lengths = jnp.ones(3, stack.dtype)
    if along == "z":
        require_depth(stack)
    if along == "volume":
        lengths = jnp.stack([model.specimen.spacing(model.grid), *model.grid.pixel]) / min(
            model.grid.pixel
        )

    def steps(axis: int) -> Stack:
        last = jax.lax.slice_in_dim(stack, stack.shape[axis] - 1, None, axis=axis)
        return jnp.diff(stack, axis=axis, append=last) / lengths[axis]

    return sum((steps(axis) ** 2 for axis in AXES[along]), jnp.zeros_like(stack))
