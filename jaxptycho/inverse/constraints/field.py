"""Constraints by the field of view, the pixels that the probe illuminates."""

from collections.abc import Callable
from dataclasses import replace

import jax.numpy as jnp
from jaxtyping import Array, Bool

from ...model import Model
from ...physics.types import Stack
from ..illumination import illumination


def field_of_view(threshold: float = 0.02) -> Callable[[Model], Model]:
    """Vacuum outside the field of view, where the dose is below `threshold` of the largest.

    Pixels that hardly any electron passed hold noise of the first steps.
    """
    _require_share(threshold)

    def project(model: Model) -> Model:
        inside = seen_pixels(model, threshold)
        specimen = model.specimen.map_stacks(lambda stack: jnp.where(inside, stack, 0))
        return replace(model, specimen=specimen)

    return project


def vacuum_baseline(threshold: float = 0.02) -> Callable[[Model], Model]:
    """Subtract from the phase of each slice its mean outside the field of view.

    A potential is known up to a constant; around the field of view it is that of vacuum. Without
    such pixels nothing changes.
    """
    _require_share(threshold)

    def project(model: Model) -> Model:
        outside = ~seen_pixels(model, threshold)
        count = jnp.maximum(jnp.sum(outside), 1)

        def subtracted(phase: Stack) -> Stack:
            base = jnp.sum(jnp.where(outside, phase, 0), axis=(1, 2), keepdims=True) / count
            return phase - base

        return replace(model, specimen=model.specimen.map_stacks(subtracted, ("phase",)))

    return project


def seen_pixels(model: Model, threshold: float) -> Bool[Array, "Y X"]:
    """Pixels whose dose is at least `threshold` of the largest one."""
    dose = illumination(model)
    return dose >= threshold * jnp.max(dose)


def _require_share(threshold: float) -> None:
    if not 0 < threshold < 1:
        raise ValueError(
            f"threshold is {threshold}; give a fraction of the largest dose, between 0 and 1"
        )
