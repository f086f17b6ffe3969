"""Sums over the shots of a batch, in micro-batches that fit the cache.

The gradient is computed chunk by chunk in the forward pass and scaled in the backward pass,
which is exact for a sum: only the waves of one chunk are stored, no value is computed twice,
and the specimen's gradient is accumulated window by window in place.
"""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Int

from ..data import Batch
from ..model import Model, simulate_pattern
from ..parts.indexed import PerShot, PerView, select
from ..parts.probe import AbstractProbe
from ..parts.slices import Sliced
from ..physics import windows
from ..physics.grids import Grid
from ..physics.types import Index, Indices, PyTree, Waves, Window
from .memory import MicrobatchPlan, Multislice, fastest, plans

Parts = tuple[Any, Any]  # the model without its specimen, and the specimen's slices
Shots = tuple[Any, Any, Any]  # numbers, counts and weights
OfShot = Callable[[Any, Any], Any]


def sum_over_shots(
    of_shot: OfShot,
    model: Model,
    batch: Batch,
    micro: int | None = None,
    multislice: Multislice | None = None,
    budget: float | None = None,
) -> jax.Array:
    """Sum Σ weight · of_shot(predicted, counts) over the shots of `batch`.

    `of_shot` maps two patterns to a scalar (or, if no gradient is required, to an array). The
    defaults of `micro`, the number of shots at a time, and of `multislice`, a function of
    `physics.waves` or `physics.checkpointed`, are the fastest choice that fits `budget` bytes, by
    default half of the device (`memory.plans`). First derivatives only, in reverse mode; for
    others use `predict`.
    """
    model = select(model, PerView, batch.view)
    sliced = model.specimen.slices(model.grid)
    choice = plans(model, len(batch.shots), micro, multislice)

    def by(plan: MicrobatchPlan) -> Callable[[Model, Batch], jax.Array]:
        return lambda model, batch: sum_over_shots(
            of_shot, model, batch, plan.micro, plan.multislice, math.inf
        )

    plan = fastest(by, model, batch, choice, budget)
    rest = eqx.tree_at(lambda m: m.specimen, _with_spectrum(model), None)
    chunks = _chunks((batch.shots, batch.counts, batch.weight), plan.micro)
    return _sum((rest, sliced), chunks, of_shot, plan.multislice)


class _Spectrum(AbstractProbe):
    """A probe given by its spectrum."""

    values: Waves

    def spectrum(self, grid: Grid) -> Waves:
        return self.values


def _with_spectrum(model: Model) -> Model:
    """The model, with the spectrum of a shared probe computed once for all chunks."""
    nodes = jax.tree.leaves(model.probe, is_leaf=lambda node: isinstance(node, PerShot))
    if any(isinstance(node, PerShot) for node in nodes):
        return model
    return eqx.tree_at(lambda m: m.probe, model, _Spectrum(model.probe.spectrum(model.grid)))


def _chunks(arrays: Shots, size: int) -> Shots:
    """Arrays `[shot, …]` reshaped to `[chunk, shot, …]`, padded with zeros (of weight 0)."""
    n = len(arrays[0])
    counts = range(max(1, round(0.8 * n / size)), math.ceil(n / size) + 1)
    count = min(counts, key=lambda c: c * math.ceil(n / c))  # least padding
    size = math.ceil(n / count)

    def cut(array: jax.Array | np.ndarray) -> jax.Array:
        padding = [(0, count * size - n)] + [(0, 0)] * (array.ndim - 1)
        return jnp.pad(jnp.asarray(array), padding).reshape(count, size, *array.shape[1:])

    return jax.tree.map(cut, arrays)


def _corners(rest: Model, sliced: Sliced, shots: Indices) -> Int[Array, "b 2"]:
    def of_shot(shot: Index) -> Int[Array, "2"]:
        scan, own = select((rest.scan, sliced), PerShot, shot)
        return own.corner(scan.position(), rest.grid)[0]

    return jax.vmap(of_shot)(shots)


def _chunk_sum(
    parts: Parts, seen: Array, chunk: Shots, of_shot: OfShot, multislice: Multislice
) -> Array:
    """Sum over one chunk; `seen` are the windows of its shots, cut from the specimen."""
    shots, counts, weight = chunk

    def one(shot: Index, window: Window, pattern: jax.Array) -> jax.Array:
        model, sliced = select(parts, PerShot, shot)
        centre = sliced.corner(model.scan.position(), model.grid)[1]
        return of_shot(simulate_pattern(model, sliced, window, centre, multislice), pattern)

    return jnp.tensordot(weight, jax.vmap(one)(shots, seen, counts), 1)


def _cut_all(sliced: Sliced, corners: Int[Array, "b 2"], grid: Grid) -> Complex[Array, "b z y x"]:
    return jax.vmap(lambda corner: sliced.window(corner, grid))(corners)


def _without_transmission(sliced: Sliced) -> Sliced:
    return eqx.tree_at(lambda s: s.transmission, sliced, None)


@eqx.filter_custom_vjp
def _sum(parts: Parts, chunks: Shots, of_shot: OfShot, multislice: Multislice) -> Array:
    rest, sliced = parts

    def of_chunk(chunk: PyTree) -> jax.Array:
        seen = _cut_all(sliced, _corners(rest, sliced, chunk[0]), rest.grid)
        return _chunk_sum(parts, seen, chunk, of_shot, multislice)

    return jnp.sum(jax.lax.map(of_chunk, chunks), 0)


@_sum.def_fwd
def _sum_forward(
    perturbed: PyTree, parts: Parts, chunks: Shots, of_shot: OfShot, multislice: Multislice
) -> tuple[Array, PyTree]:
    del perturbed
    rest, sliced = parts
    small = (rest, _without_transmission(sliced))
    diff, fixed = eqx.partition(small, eqx.is_inexact_array)

    def chunk_sum(diff: PyTree, seen: jax.Array, chunk: PyTree) -> jax.Array:
        return _chunk_sum(eqx.combine(diff, fixed), seen, chunk, of_shot, multislice)

    def body(carry: Any, chunk: PyTree) -> Any:
        grads, field = carry
        corners = _corners(rest, sliced, chunk[0])
        seen = _cut_all(sliced, corners, rest.grid)
        value, (more, of_windows) = jax.value_and_grad(chunk_sum, (0, 1))(diff, seen, chunk)
        grads = jax.tree.map(jnp.add, grads, more)
        return (grads, windows.add_back(field, corners, of_windows)), value

    start = (jax.tree.map(jnp.zeros_like, diff), jnp.zeros_like(sliced.transmission))
    ((rest_grads, sliced_grads), field), values = jax.lax.scan(body, start, chunks)
    sliced_grads = eqx.tree_at(
        lambda s: s.transmission, sliced_grads, field, is_leaf=lambda n: n is None
    )
    return jnp.sum(values), (rest_grads, sliced_grads)


@_sum.def_bwd
def _sum_backward(
    residuals: PyTree,
    cotangent: Array,
    perturbed: PyTree,
    parts: Parts,
    chunks: Shots,
    of_shot: OfShot,
    multislice: Multislice,
) -> PyTree:
    del perturbed, parts, chunks, of_shot, multislice
    return jax.tree.map(lambda g: g * cotangent, residuals)
