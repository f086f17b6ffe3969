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

Thick specimens (the parallel form of 3PIE, Maiden et al. 2012): ψ is the wave that enters each
slice through those before it, |O|² that of the first slice, and the step of every slice is
divided by their number n. The exit wave changes by Σ_n U_n ψ_n Δt_n, with U_n the way from slice
n to the exit; as ‖Σ_n a_n‖² ≤ n·Σ_n ‖a_n‖² (equal for slices so thin that only the projection
matters), steps n times as long overshoot, whereas in 3PIE's sequential update each slice sees
the residual of the others. One slice is exact. |O|² is evaluated at integer pixels.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from ...data import Batch
from ...model import Model
from ...parts.indexed import PerShot, PerView, plain, select
from ...parts.probe import PixelProbe
from ...parts.slices import Sliced
from ...physics import waves, windows
from ...physics.types import PyTree, Stack, Waves

AT_ONCE = 16  # shots whose waves are in memory at the same time


def epie(rate: float = 1.0) -> optax.GradientTransformationExtraArgs:
    """Extended PIE: `rpie` with a = 1, every step scaled by the brightest pixel."""
    return rpie(1.0, rate)


def rpie(regularisation: float = 0.1, rate: float = 1.0) -> optax.GradientTransformationExtraArgs:
    """Regularised PIE for the loss `misfit(amplitude)`, with a = `regularisation` in (0, 1]."""
    if not 0 < regularisation <= 1:
        raise ValueError(
            f"regularisation is {regularisation}; rPIE requires a number above 0 and up to 1, "
            "which is ePIE"
        )

    def init(params: PyTree) -> Any:
        require_supported(params)
        return optax.EmptyState()

    def update(
        grads: PyTree,
        state: Any,
        params: PyTree | None = None,
        *,
        model: Any,
        batch: Batch,
        units: PyTree | None = None,
        **_: Any,
    ) -> Any:
        del params
        half = rate / 2 * jnp.sum(batch.weight)  # the loss is a mean over shots, PIE uses their sum
        updates = jax.tree.map(jnp.zeros_like, grads)
        if jax.tree.leaves(grads.specimen):
            seen = batch_illumination(model, batch)
            step = half / len(seen) / mixed(seen, regularisation)
            changes = model.specimen.transmission_step(grads.specimen, step)
            fields = lambda u: [getattr(u.specimen, name) for name in changes]  # noqa: E731
            updates = eqx.tree_at(fields, updates, list(changes.values()))
        if jax.tree.leaves(grads.probe):
            size = 1.0 if units is None else plain(units.probe.waves)
            step = half / mixed(squared_object(model, batch), regularisation) / size**2
            probe = jax.tree.map(
                lambda gradient: (-step * gradient).astype(gradient.dtype), grads.probe.waves
            )
            updates = eqx.tree_at(lambda u: u.probe.waves, updates, probe)
        return updates, state

    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore


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


def folded(field: Float[Array, "z W H"], shape: tuple[int, ...]) -> Stack:
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


def require_supported(params: PyTree) -> None:
    """Raise ValueError for parameters that PIE cannot update."""
    specimen = params.specimen
    arrays = [getattr(specimen, name) for name in specimen.pixelwise]
    if jax.tree.leaves(specimen) and not arrays:
        raise ValueError(
            "PIE updates transmissions that are free in every pixel, and a "
            f"{type(specimen).__name__} has none; give this part another optimiser with per_part"
        )
    if jax.tree.leaves(specimen) and not all(x is None or eqx.is_array(x) for x in arrays):
        raise ValueError(
            "PIE updates phase and absorption together; give it the specimen and not one of its "
            "fields"
        )
    if jax.tree.leaves(params.probe) and not isinstance(params.probe, PixelProbe):
        raise ValueError(
            f"PIE updates a PixelProbe, not a {type(params.probe).__name__}; give this part "
            "another optimiser with per_part"
        )
    if not jax.tree.leaves((params.specimen, params.probe)):
        raise ValueError(
            "PIE updates the specimen and the probe and was given neither; give other parts "
            "another optimiser"
        )
    nodes = jax.tree.leaves(params.probe, is_leaf=lambda node: isinstance(node, PerShot))
    if any(isinstance(node, PerShot) for node in nodes):
        raise ValueError(
            "PIE updates waves that shots share; these are PerShot, give the probe another "
            "optimiser"
        )
