"""Ptychographic iterative engines: ePIE (Maiden & Rodenburg 2009) and rPIE (Maiden et al. 2017).

Both are gradient steps on the amplitude loss with a step length per pixel: the gradient with
respect to the wave behind the specimen is twice the difference between the wave and its copy with
the measured moduli, so PIE's update of the object is half the gradient over the illumination,

    Δt = −rate · ½∂L/∂t / ((1−a)·Σ|ψ|² + a·max Σ|ψ|²),

and that of the probe is the same with Σ|O|². The sums run over a batch: one shot is Maiden's
sequential update, more are its parallel form. With a = 1 this is ePIE; a smaller a
(rPIE) moves dimly illuminated pixels faster.

`rpie(a)` is an optax transformation that moves the transmission of a TransmissionStack (or the
phase and absorption of a SliceStack) and the waves of a PixelProbe, either or both. It is used as
any other optimiser, with a separate `a` for each part:

    per_part(specimen=rpie(0.1), probe=rpie(0.5), scan=optax.adam(1e-2))
    make_step(misfit(amplitude), rpie())            # specimen and probe, all else is fixed

Thick specimens (the parallel form of 3PIE, Maiden et al. 2012) have the curvature of each slice
(`curvature`), which bounds the step; `three_pie` is the sequential form.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from ...data import Batch
from ...physics.types import PyTree
from .curvature import (
    batch_illumination,
    mixed,
    require_regularisation,
    squared_object,
    step_of_probe,
    step_of_specimen,
)
from .engine import engine


def epie(rate: float = 1.0) -> optax.GradientTransformationExtraArgs:
    """Extended PIE: `rpie` with a = 1, every step scaled by the brightest pixel."""
    return rpie(1.0, rate)


def rpie(regularisation: float = 0.1, rate: float = 1.0) -> optax.GradientTransformationExtraArgs:
    """Regularised PIE for the loss `misfit(amplitude)`, with a = `regularisation` in (0, 1]."""
    require_regularisation(regularisation)

    def update(grads: PyTree, state: Any, model: Any, batch: Batch, units: PyTree | None) -> Any:
        half = rate / 2 * jnp.sum(batch.weight)  # the loss is a mean over shots, PIE uses their sum
        updates = jax.tree.map(jnp.zeros_like, grads)
        if jax.tree.leaves(grads.specimen):
            seen = batch_illumination(model, batch)
            step = half / len(seen) / mixed(seen, regularisation)
            updates = step_of_specimen(updates, grads, model, step)
        if jax.tree.leaves(grads.probe):
            step = half / mixed(squared_object(model, batch), regularisation)
            updates = step_of_probe(updates, grads, units, step)
        return updates, state

    return engine(update)
