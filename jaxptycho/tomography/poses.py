"""Poses of the views by Gauss–Newton steps on their patterns.

Tilt, angles and shift of a view are few parameters, and strongly coupled.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..data import Batch, Dataset, make_batch
from ..inverse.least_squares import normal_equations, solve_damped
from ..inverse.solvers.parameter_scaling import natural_units
from ..inverse.step import copy_for_donation
from ..model import Model, simulate_pattern
from ..parts.indexed import PerShot, PerView, axis_size, select
from ..parts.probe import AbstractProbe
from ..physics.grids import Grid
from .gauge import common_move

FIELDS = ("tilt", "angles", "shift")
BUDGET = 2.0**28  # bytes of waves computed at the same time
MIN_DAMPING = 1e-6
WAVES_PER_SLICE = 6  # waves kept for the derivatives of one slice


def pose_step(
    model: Model,
    batch: Batch,
    fields: tuple[str, ...] = FIELDS,
    damping: float = 1e-2,
    longest: float = 1.0,
    budget: float = BUDGET,
) -> Model:
    """Return the model after one Levenberg–Marquardt step of the pose of the batch's view.

    δ = −(JᵀJ + damping·diag JᵀJ)⁻¹ Jᵀr with r = √M − √I, which equalises Poisson noise, and J by
    forward differentiation of the multislice, one column for each number of the `fields` that is
    `PerView` in the volume: only the shift while it is poor, as angles would follow its errors. No
    number moves by more than `longest` of its natural unit, a pixel (at the rim of the volume). The
    volume is rotated once; shots are then computed in groups whose waves fit into `budget` bytes,
    for any batch size. Pure: `jit` it.
    """
    names = [n for n in fields if isinstance(getattr(model.specimen, n), PerView)]
    if not names:
        raise ValueError(
            f"of {', '.join(fields)} nothing differs from view to view in the specimen; give them "
            "PerView"
        )
    natural = natural_units(eqx.filter(model, eqx.is_inexact_array)).specimen
    units = [getattr(natural, n).values for n in names]
    values = [getattr(model.specimen, n).values for n in names]
    sizes = [math.prod(v.shape[1:]) for v in values]

    def moved(by: Array) -> Model:
        parts = _split(by, sizes)
        new = [
            v.at[batch.view].add((u * p).reshape(v.shape[1:]).astype(v.dtype))
            for v, u, p in zip(values, units, parts, strict=True)
        ]
        return eqx.tree_at(lambda m: [getattr(m.specimen, n).values for n in names], model, new)

    def sliced(by: Array) -> tuple[Any, Any]:
        own = select(moved(by).specimen, PerView, batch.view).slices(model.grid)
        return eqx.partition(own, eqx.is_inexact_array)

    start = jnp.zeros(sum(sizes), values[0].dtype)
    still = select(eqx.tree_at(lambda m: m.specimen, model, None), PerView, batch.view)
    here, turned, fixed = jax.linearize(sliced, start, has_aux=True)
    # of the slices, by every number
    slopes = jax.lax.map(turned, jnp.eye(len(start), dtype=start.dtype))

    def of_shot(shot: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        """JᵀJ and Jᵀr of one pattern."""
        number, counts, weight = shot

        def residual(parts: Any) -> Array:
            one, seen = select((still, eqx.combine(parts, fixed)), PerShot, number)
            corner, centre = seen.corner(one.scan.position(), one.grid)
            pattern = simulate_pattern(one, seen, seen.window(corner, one.grid), centre)
            return (
                jnp.sqrt(weight)
                * (jnp.sqrt(jnp.maximum(pattern, 0) + 1e-6) - jnp.sqrt(counts + 1e-6)).ravel()
            )

        r, push = jax.linearize(residual, here)
        return normal_equations(jax.lax.map(push, slopes), r)

    size = shots_within(still.probe, model.grid, len(here.transmission), budget)
    normal, right = jax.lax.map(of_shot, (batch.shots, batch.counts, batch.weight), batch_size=size)
    step = -solve_damped(jnp.sum(normal, 0), jnp.sum(right, 0), damping + MIN_DAMPING)
    return moved(step * jnp.minimum(1.0, longest / jnp.maximum(jnp.max(jnp.abs(step)), 1e-30)))


def shots_within(probe: AbstractProbe, grid: Grid, slices: int, budget: float) -> int:
    """Number of shots whose waves, kept in every slice, fit into a budget [bytes]; at least 1."""
    waves: Any = eqx.filter_eval_shape(lambda p: select(p, PerShot, 0).spectrum(grid), probe)
    return max(
        1, int(budget / (WAVES_PER_SLICE * slices * math.prod(waves.shape) * waves.dtype.itemsize))
    )


def shift_step(model: Model, batch: Batch, budget: float = BUDGET) -> Model:
    """Return the model with the shift of the batch's view after twice its Newton step.

    A volume that was reconstructed with the wrong shift has followed it by half.
    """
    before: Any = model.specimen
    after: Any = pose_step(model, batch, ("shift",), budget=budget).specimen
    here = before.shift.values
    there = after.shift.values
    return eqx.tree_at(lambda m: m.specimen.shift.values, model, 2 * there - here)


STEPS = {"shifts": eqx.filter_jit(shift_step), "all": eqx.filter_jit(pose_step)}


def refine_poses(
    model: Model,
    data: Dataset,
    kind: str,
    count: int = 48,
    seed: int | tuple[int, ...] = 0,
    shots: Sequence[Int[np.ndarray, " _"]] | None = None,
    budget: float = BUDGET,
) -> Model:
    """Return the model after a step of every view, "shifts" or "all".

    Each step takes `count` random patterns, of all patterns or of `shots` (a list over views; a
    view without any keeps its pose).
    """
    rng = np.random.default_rng(seed)
    allowed = [np.arange(n) for n in data.n_shots] if shots is None else shots
    size = min(count, max(map(len, allowed)))
    for view, usable in enumerate(allowed):
        drawn = np.sort(rng.permutation(usable)[:count])
        if len(drawn):
            model = STEPS[kind](model, make_batch(data, view, drawn, size), budget=budget)
    return copy_for_donation(model)


def without_drift(after: Model, before: Model) -> Model:
    """Return `after` without the common motion of its views since `before`.

    Patterns cannot distinguish it from a moving volume: a shift of the full specimen,
    τ_l = Π R_l t, and its rotation, R_l Q.
    """
    new, old = (poses_of(model) for model in (after, before))
    common = common_move(new - old, old)
    names = [n for n in FIELDS if isinstance(getattr(after.specimen, n), PerView)]
    parts = {"tilt": common[:, 0], "angles": common[:, 1:3], "shift": common[:, 3:]}
    kept = [
        getattr(after.specimen, n).values
        - jnp.asarray(parts[n], getattr(after.specimen, n).values.dtype)
        for n in names
    ]
    return eqx.tree_at(lambda m: [getattr(m.specimen, n).values for n in names], after, kept)


def poses_of(model: Model) -> Float[np.ndarray, "view 5"]:
    """Tilt, angles about x and z [rad] and shift (y, x) [Å] of every view."""
    volume: Any = model.specimen
    views = [select(volume, PerView, view) for view in range(axis_size(volume, PerView))]
    return np.array(
        [[v.tilt, *(np.zeros(2) if v.angles is None else v.angles), *v.shift] for v in views], float
    )


def reset_volume(model: Model) -> Model:
    """Return the same views of vacuum: volumes are reset where poses were too poor for them."""
    return replace(model, specimen=model.specimen.map_stacks(jnp.zeros_like))


def _split(by, sizes):
    ends = [sum(sizes[: n + 1]) for n in range(len(sizes))]
    return [by[end - size : end] for end, size in zip(ends, sizes, strict=True)]
