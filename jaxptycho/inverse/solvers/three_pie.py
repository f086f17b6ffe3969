"""3PIE: PIE through a thick specimen, slice after slice from its exit (Maiden, Humphry & Rodenburg,
J. Opt. Soc. Am. A 29, 1606 (2012)).

The projection of the exit wave on the measured moduli leaves a residual χ behind the last slice.
From the last slice to the first, each takes its share of it,

    Δt_n = c_n · Σ ψ_n* χ_n / ((1−a)·Σ|ψ_n|² + a·max Σ|ψ_n|²),   χ_n ← χ_n − Δt_n ψ_n,

with ψ_n the wave entering slice n and sums over the shots of a batch. The rest goes on to the slice
before, χ_{n−1} = F⁻¹[P_n* F((t_n + Δt_n)* χ_n)], and the probe takes what enters the first. In the
paper each slice explains the entire residual, which overshoots with the number of slices. Here each
sees what the others have left: a Gauss–Seidel step on the bound of the loss (`curvature`), which
cannot rise while no slice amplifies. The share c_n = 1/n of slice n, counted from the entrance,
divides evenly what all of them can explain.

All waves of a batch are in memory: shots × slices × modes × pixels × 8 bytes.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Complex, Float, Int

from ...data import Batch
from ...model import Model
from ...parts.indexed import PerShot, PerView, plain, select
from ...parts.slices import Sliced
from ...physics import waves, windows
from ...physics.types import Index, PyTree, Slices, Waves
from .curvature import (
    AT_ONCE,
    folded,
    mixed,
    require_regularisation,
    squared_object,
)
from .engine import engine
from .moduli import moduli_residual


class Beams(NamedTuple):
    """Waves of the shots of a batch."""

    corner: Int[Array, "b 2"]  # of their windows
    centre: Float[Array, "b 2"]  # of the probe in its window [Å]
    entering: Complex[Array, "b z m y x"]  # in front of every slice
    residual: Complex[Array, "b m y x"]  # χ behind the last slice


def three_pie(regularisation: float = 0.1) -> optax.GradientTransformationExtraArgs:
    """Sequential 3PIE for the amplitude loss, of specimen, probe or both; stable at rate 1.

    `regularisation` is a in (0, 1].
    """
    require_regularisation(regularisation)

    def update(grads: PyTree, state: Any, model: Any, batch: Batch, units: PyTree | None) -> Any:
        own = select(model, PerView, batch.view)
        sliced = own.specimen.slices(own.grid)
        beams = beams_of(own, sliced, batch)
        share = 1.0 if jax.tree.leaves(grads.specimen) else 0.0
        change, left = backward(own, sliced, batch, beams, share, regularisation)
        updates = jax.tree.map(jnp.zeros_like, grads)
        if share:
            updates = add_to_specimen(updates, own.specimen.transmission_change(change))
        if jax.tree.leaves(grads.probe):
            power = mixed(squared_object(model, batch), regularisation)
            updates = add_to_probe(updates, on_axis(own, batch, beams, left) / power, batch, units)
        return updates, state

    return engine(update)


def beams_of(model: Model, sliced: Sliced, batch: Batch) -> Beams:
    """Waves of the shots of a batch through the slices, and their residuals behind the last."""

    def of_shot(shot: Any) -> Beams:
        index, counts = shot
        one, seen = select((model, sliced), PerShot, index)
        corner, centre = seen.corner(one.scan.position(), one.grid)
        window = seen.window(corner, one.grid)

        def travel(wave: Waves, layer: Any) -> Any:
            transmission, distance = layer
            behind = waves.transmit(wave, transmission)
            return waves.propagate(behind, one.propagator.kernel(one.grid, distance)), wave

        wave = waves.place_probe(one.probe.spectrum(one.grid), centre, one.grid)
        last, before = jax.lax.scan(travel, wave, (window[:-1], thicknesses(seen)[:-1]))
        exit = waves.transmit(last, window[-1])
        entering = jnp.concatenate([before, last[None]])
        return Beams(corner, centre, entering, moduli_residual(one, exit, centre, counts))

    shots = jnp.asarray(batch.shots), jnp.asarray(batch.counts)
    return jax.lax.map(of_shot, shots, batch_size=AT_ONCE)


def thicknesses(sliced: Sliced) -> Float[Array, " z"]:
    """Thickness [Å] of every slice of one shot."""
    return jnp.broadcast_to(jnp.asarray(sliced.thickness), len(sliced.transmission))


def backward(
    model: Model, sliced: Sliced, batch: Batch, beams: Beams, share: float, regularisation: float
) -> tuple[Slices, Complex[Array, "b m y x"]]:
    """Changes Δt of all slices, and the residual that is left in front of the first.

    `share` is 1, or 0 to leave the specimen as it is.
    """
    shots, weight = jnp.asarray(batch.shots), jnp.asarray(batch.weight)
    shape = model.grid.shape

    def summed(values: Complex[Array, "b y x"]) -> Complex[Array, "Y X"]:
        """Sum over the windows of all shots."""
        blank = jnp.zeros((1, *sliced.transmission.shape[1:]), values.dtype)
        weighted = (weight[:, None, None] * values).astype(values.dtype)[:, None]
        field = windows.add_back(blank, beams.corner, weighted)
        if sliced.period is None:
            return field[0]
        return windows.wrap(folded(field, (1, *sliced.plane)), shape)[0]

    def seen(plane: Complex[Array, "Y X"]) -> Complex[Array, "b 1 y x"]:
        return jax.vmap(lambda corner: windows.cut(plane[None], corner, shape))(beams.corner)

    def of_slice(number: Index, residual: Array, transmission: Array) -> Any:
        entering = jax.lax.dynamic_index_in_dim(beams.entering, number, 1, keepdims=False)
        power = summed(jnp.sum(jnp.abs(entering) ** 2, 1) + 0j).real
        change = summed(jnp.sum(jnp.conj(entering) * residual, 1)) / mixed(power, regularisation)
        change = change * (share / (jnp.asarray(number) + 1)).astype(change.real.dtype)
        residual = residual - entering * seen(change)
        return change, jnp.conj(seen(transmission + change)) * residual

    def to_slice_before(number: Index, residual: Array) -> Array:
        def of_shot(shot: Index, wave: Waves) -> Waves:
            one, seen = select((model, sliced), PerShot, shot)
            kernel = one.propagator.kernel(one.grid, thicknesses(seen)[number - 1])
            return waves.propagate(wave, jnp.conj(kernel))

        return jax.vmap(of_shot)(shots, residual)

    def travel(residual: Array, layer: Any) -> Any:
        number, transmission = layer
        change, left = of_slice(number, residual, transmission)
        return to_slice_before(number, left), change

    layers = jnp.arange(1, len(sliced.transmission)), sliced.transmission[1:]
    residual, changes = jax.lax.scan(travel, beams.residual, layers, reverse=True)
    first, left = of_slice(0, residual, sliced.transmission[0])
    rows, columns = sliced.plane
    return jnp.concatenate([first[None], changes])[:, :rows, :columns], left


def on_axis(
    model: Model, batch: Batch, beams: Beams, left: Complex[Array, "b m y x"]
) -> Complex[Array, "m y x"]:
    """Sum over the shots of waves in their windows, each moved to where the probe is centred."""

    def of_shot(centre: Array, wave: Waves) -> Waves:
        back = jnp.conj(waves.phase_ramp(model.grid, centre))
        return waves.inverse_fourier(back * waves.fourier(wave))

    moved = jax.vmap(of_shot)(beams.centre, left)
    weighted = jnp.tensordot(jnp.asarray(batch.weight, moved.real.dtype), moved, 1)
    return jnp.fft.fftshift(weighted, axes=(-2, -1))


def add_to_specimen(updates: PyTree, change: dict[str, Array]) -> PyTree:
    """`updates` with the changes of fields of the specimen."""
    for name, values in change.items():
        where = lambda u, name=name: getattr(u.specimen, name)  # noqa: E731
        updates = eqx.tree_at(where, updates, values.astype(where(updates).dtype))
    return updates


def add_to_probe(
    updates: PyTree, change: Complex[Array, "m y x"], batch: Batch, units: PyTree | None
) -> PyTree:
    """`updates` with the change of the probe of one view, in natural units."""
    for name in updates.probe.pixelwise:
        size = 1.0 if units is None else plain(getattr(units.probe, name))

        def changed(old: Array, size: Any = size) -> Array:
            values = (change / size).astype(old.dtype)
            return values if old.ndim == values.ndim else old.at[batch.view].set(values)

        values = jax.tree.map(changed, getattr(updates.probe, name))
        updates = eqx.tree_at(lambda u, name=name: getattr(u.probe, name), updates, values)
    return updates
