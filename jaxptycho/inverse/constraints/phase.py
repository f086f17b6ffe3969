"""Constraints that take a little off the phase of every slice, or bound it."""

import math
from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ...model import Model
from ...physics.types import Stack
from ..denoising import tv_step


def phase_limits(
    lowest_rad: float = -math.pi, highest_rad: float = math.pi
) -> Callable[[Model], Model]:
    """Limit the phase of every slice to [lowest, highest] rad."""
    if not lowest_rad < highest_rad:
        raise ValueError(
            f"got phases from {lowest_rad} to {highest_rad} rad; give lowest < highest"
        )
    return lambda model: _map_phase(model, lambda phase: jnp.clip(phase, lowest_rad, highest_rad))


def shrinkage(threshold_rad: float) -> Callable[[Model], Model]:
    """Positivity with shrinkage: phase φ becomes max(φ − threshold, 0).

    The proximal step of an L1 norm with positivity (Daubechies, Defrise & De Mol 2004): what noise
    adds everywhere decays, and only what the patterns ask for again remains.
    """
    if threshold_rad < 0:
        raise ValueError(f"threshold_rad is {threshold_rad}; give a phase of at least 0")
    return lambda model: _map_phase(model, lambda phase: jnp.maximum(phase - threshold_rad, 0))


def total_variation_step(weight_rad: float, iterations: int = 20) -> Callable[[Model], Model]:
    """Proximal step of the total variation of the phase of every slice, in its plane.

    argmin ½‖U − φ‖² + weight·Σ|∇U| (`denoising.tv_step`): unlike the gradient of the penalty, it is
    exact at edges and can never overshoot. An edge loses `weight` over the width of its plateaus.
    """
    if weight_rad <= 0 or iterations < 1:
        raise ValueError(
            f"a total variation of weight {weight_rad} in {iterations} iterations; give a positive "
            "weight, and at least one iteration"
        )

    def of_slice(phase: Array) -> Array:
        dual = jnp.zeros((3, 1, *phase.shape), phase.dtype)
        return tv_step(phase[None], weight_rad, dual, iterations=iterations)[0][0]

    return lambda model: _map_phase(model, jax.vmap(of_slice))


def _map_phase(model: Model, function: Callable[[Stack], Stack]) -> Model:
    """The model with a function of the phase [rad] of its slices applied to them."""
    unit = jnp.asarray(model.specimen.radians(model.grid))
    changed = model.specimen.map_stacks(lambda values: function(unit * values) / unit, ("phase",))
    return replace(model, specimen=changed)
