"""Projection of an exit wave on the moduli that a pattern has measured."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from ...model import Model
from ...physics.types import Waves
from ...physics.waves import Exit
from ..losses import amplitude


def moduli_residual(
    model: Model, wave: Waves, centre: Float[Array, "2"], counts: Num[Array, "v u"]
) -> Waves:
    """Residual χ = ψ′ − ψ of the exit wave ψ of one shot and its projection ψ′ on the moduli √I.

    It is −∂L/∂ψ* of the amplitude loss, through any detector: for the far field of an ideal one,
    F⁻¹[(√I/√M − 1)·Fψ] with the prediction M = Σ_m |Fψ_m|², and zero where pixels are masked.
    `centre` is that of the probe in its window [Å]; all values of `model` are those of the shot.
    """
    grid = model.grid
    offset = centre - jnp.asarray([n // 2 * p for n, p in zip(grid.shape, grid.pixel, strict=True)])

    def loss(wave: Waves) -> Array:
        exit = Exit(wave, jnp.ones(grid.shape, wave.dtype))
        predicted = model.detector.detect(exit, grid, offset)
        return jnp.sum(amplitude(predicted, counts.astype(predicted.dtype)))

    return -0.5 * jnp.conj(jax.grad(loss)(wave))
