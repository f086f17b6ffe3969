"""Curvature of the amplitude loss by object and probe, and the steps that it bounds.

With the projection ψ′ of the wave ψ behind the specimen on the measured moduli, the amplitude loss
of a shot is at most ‖φ − ψ′‖² for any wave φ, and equal at φ = ψ (majorisation: Hunter & Lange,
Am. Stat. 58, 30 (2004)). For the transmission t this bound has the curvature Σ|ψ|² over the shots,
the illumination, and for the probe Σ|t|². The gradient over the curvature is therefore a step that
needs no rate: it leads to the minimum of the bound, below which the loss remains.

A thick specimen has n slices. The exit wave changes by Σ_n U_n ψ_n Δt_n, with ψ_n the wave that
enters slice n and U_n the way from there to the exit; as ‖Σ_n a_n‖² ≤ n·Σ_n ‖a_n‖² (equal for
slices so thin that only the projection matters), the curvature of each slice counts n times. |t|²
of the probe is that of the first slice, evaluated at integer pixels.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num

from ...data import Batch
from ...model import Model
from ...parts.indexed import PerShot, PerView, plain, select
from ...parts.slices import Sliced
from ...physics import waves, windows
from ...physics.types import PyTree, Stack, Waves

AT_ONCE = 16  # shots whose waves are in memory at the same time


def step_of_specimen(updates: PyTree, grads: PyTree, model: Model, step: Stack) -> PyTree:
    """`updates` with the change of the specimen that moves t by −`step`·∂L/∂t*."""
    changes = model.specimen.transmission_step(grads.specimen, step)
    names = list(changes)
    return eqx.tree_at(
        lambda u: [getattr(u.specimen, name) for name in names], updates, list(changes.values())
    )


def step_of_probe(
    updates: PyTree, grads: PyTree, units: PyTree | None, step: Float[Array, "y x"]
) -> PyTree:
    """`updates` with the change −`step`·∂L/∂ψ* of the probe's free waves, in their `units`."""
    for name in grads.probe.pixelwise:
        size = 1.0 if units is None else plain(getattr(units.probe, name))
        scaled = step / size**2
        gradient = getattr(grads.probe, name)
        change = jax.tree.map(lambda g, s=scaled: (-s * g).astype(g.dtype), gradient)
        updates = eqx.tree_at(lambda u, name=name: getattr(u.probe, name), updates, change)
    return updates


def mixed(power: Float[Array, "... y x"], a: float) -> Float[Array, "... y x"]:
    """Regularised power (1−a)·power + a·max power, the maximum over each plane."""
    return (1 - a) * power + a * jnp.max(power, axis=(-2, -1), keepdims=True)


def batch_illumination(model: Model, batch: Batch) -> Stack:
    """Dose Σ|ψ|² [quanta] entering every pixel of every slice, over the shots of `batch`."""
    model = select(model, PerView, batch.view)
    sliced = model.specimen.slices(model.grid)

    def of_shot(shot: Any) -> Any:
        index, weight = shot
        one, seen = select((model, sliced), PerShot, index)
        corner, centre = seen.corner(one.scan.position(), one.grid)
        wave = waves.place_probe(one.probe.spectrum(one.grid), centre, one.grid)
        return corner, weight * entering(one, wave, seen, corner)

    shots = jnp.asarray(batch.shots), jnp.asarray(batch.weight)
    corners, seen = jax.lax.map(of_shot, shots, batch_size=AT_ONCE)
    blank = jnp.zeros(sliced.transmission.shape, seen.dtype)
    return folded(windows.add_back(blank, corners, seen), model.specimen.stack().shape)


def entering(
    model: Model, wave: Waves, sliced: Sliced, corner: Int[Array, "2"]
) -> Float[Array, "z y x"]:
    """Intensity of the wave of one shot at the entrance of every slice."""
    seen = sliced.window(corner, model.grid)
    gaps = jnp.broadcast_to(sliced.thickness, seen.shape[:1])[:-1]

    def travel(wave: Waves, layer: Any) -> Any:
        transmission, distance = layer
        kernel = model.propagator.kernel(model.grid, distance)
        wave = waves.propagate(waves.transmit(wave, transmission), kernel)
        return wave, waves.intensity(wave)

    first = waves.intensity(wave)[None]
    return jnp.concatenate([first, jax.lax.scan(travel, wave, (seen[:-1], gaps))[1]])


def folded(field: Num[Array, "z W H"], shape: tuple[int, ...]) -> Num[Array, "z Y X"]:
    """Sum a field over the periodic continuation of a specimen of this `shape`."""
    rows, columns = (
        jnp.arange(n) % size for n, size in zip(field.shape[1:], shape[1:], strict=True)
    )
    return jnp.zeros(shape, field.dtype).at[:, rows[:, None], columns].add(field)


def squared_object(model: Model, batch: Batch) -> Float[Array, "y x"]:
    """Sum Σ|t|² of the first slice over the windows of the shots of `batch`."""
    model = select(model, PerView, batch.view)
    sliced = model.specimen.slices(model.grid)

    def of_shot(total: Any, shot: Any) -> Any:
        index, weight = shot
        corner = sliced.corner(select(model.scan, PerShot, index).position(), model.grid)[0]
        seen = sliced.window(corner, model.grid)[0]
        return total + weight * (seen.real**2 + seen.imag**2), None

    blank = jnp.zeros(model.grid.shape, sliced.transmission.real.dtype)
    return jax.lax.scan(
        of_shot, blank, (jnp.asarray(batch.shots), jnp.asarray(batch.weight, blank.dtype))
    )[0]


def require_regularisation(regularisation: float) -> None:
    """Raise ValueError for a regularisation outside (0, 1]."""
    if not 0 < regularisation <= 1:
        raise ValueError(
            f"regularisation is {regularisation}; give a number above 0 and up to 1, the least "
            "curvature of a pixel over the largest"
        )


def require_supported(params: PyTree) -> None:
    """Raise ValueError for parameters whose curvature is not known."""
    specimen = params.specimen
    arrays = [getattr(specimen, name) for name in specimen.pixelwise]
    if jax.tree.leaves(specimen) and not arrays:
        raise ValueError(
            "this solver updates transmissions that are free in every pixel, and a "
            f"{type(specimen).__name__} has none; give this part another optimiser with per_part"
        )
    if jax.tree.leaves(specimen) and not all(x is None or eqx.is_array(x) for x in arrays):
        raise ValueError(
            "this solver updates phase and absorption together; give it the specimen and not one "
            "of its fields"
        )
    if jax.tree.leaves(params.probe) and not params.probe.pixelwise:
        raise ValueError(
            "this solver updates waves that are free in every pixel, and a "
            f"{type(params.probe).__name__} has none; give this part another optimiser with "
            "per_part"
        )
    if not jax.tree.leaves((params.specimen, params.probe)):
        raise ValueError(
            "this solver updates the specimen and the probe and was given neither; give other "
            "parts another optimiser"
        )
    nodes = jax.tree.leaves(params.probe, is_leaf=lambda node: isinstance(node, PerShot))
    if any(isinstance(node, PerShot) for node in nodes):
        raise ValueError(
            "this solver updates waves that shots share; these are PerShot, give the probe another "
            "optimiser"
        )
