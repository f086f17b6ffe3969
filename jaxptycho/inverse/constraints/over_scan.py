"""Constraints of values that vary from shot to shot: smooth over the scan."""

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...model import Model
from ...parts.indexed import PerView, axis_size, vmap_shots


def smooth_tilts(sigma_angstrom: float) -> Callable[[Model], Model]:
    """Average the tilt of every shot over its neighbours, by a Gaussian of their distance.

    A specimen bends over lengths far above the step of the scan (`[vary] "propagator.angles"`).
    """
    _require_length(sigma_angstrom)

    def project(model: Model) -> Model:
        average = neighbour_average(model, sigma_angstrom)
        return replace(model, propagator=model.propagator.map_tilts(average))

    return project


def smooth_weights(sigma_angstrom: float, floor: float = 0.0) -> Callable[[Model], Model]:
    """Average the weights of a relaxed probe over neighbouring shots, by a Gaussian.

    The first weight of each shot is at least `floor` times its mean over the shots, so no shot
    loses the common wave.
    """
    _require_length(sigma_angstrom)
    if not 0 <= floor <= 1:
        raise ValueError(f"floor is {floor}; give a fraction of the mean weight, from 0 to 1")

    def project(model: Model) -> Model:
        average = neighbour_average(model, sigma_angstrom)

        def change(weights: Array) -> Array:
            smooth = average(weights)
            first = smooth[:, 0]
            least = floor * jnp.mean(jnp.abs(first))
            size = jnp.abs(first)
            factor = jnp.maximum(size, least) / jnp.where(size > 0, size, 1)
            return smooth.at[:, 0].set(jnp.where(size > 0, first * factor, least))

        return replace(model, probe=model.probe.map_weights(change))

    return project


def neighbour_average(model: Model, sigma: float) -> Callable[[Array], Array]:
    """A function of values [shot, n]: their averages over shots, weighted by exp(−r²/2σ²)."""
    if axis_size(model.scan, PerView) > 1:
        raise ValueError(
            "values of a tilt series are not averaged over a scan; leave this constraint out"
        )
    places = vmap_shots(lambda scan: scan.position(), model.scan)

    def average(values: Float[Array, "shot n"]) -> Float[Array, "shot n"]:
        def of_shot(place: Array) -> Array:
            weight = jnp.exp(-jnp.sum((places - place) ** 2, 1) / (2 * sigma**2))
            return jnp.tensordot(weight.astype(values.dtype), values, 1) / jnp.sum(weight)

        return jax.lax.map(of_shot, places, batch_size=64).astype(values.dtype)

    return average


def _require_length(sigma: float) -> None:
    if sigma <= 0:
        raise ValueError(f"sigma_angstrom is {sigma}; give a positive length")
