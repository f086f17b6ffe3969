"""How every view stands, by Gauss and Newton from its patterns: tilt, angles and shift are few, and strongly coupled."""

import math
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..data import Batch, Dataset, make_batch
from ..inverse.solvers.parameter_scaling import natural_units
from ..inverse.step import copy_for_donation
from ..model import Model, simulate_pattern
from ..parts.indexed import PerShot, PerView, axis_size, select
from ..parts.probe import AbstractProbe
from ..physics.grids import Grid
from .gauge import common_move

FIELDS = ("tilt", "angles", "shift")
BUDGET = 2.0**28  # bytes of waves side by side
KEPT = 6  # waves that the derivatives of one slice hold


def pose_step(
    model: Model,
    batch: Batch,
    fields: tuple[str, ...] = FIELDS,
    damping: float = 1e-2,
    longest: float = 1.0,
    budget: float = BUDGET,
) -> Model:
    """The model with the tilt, angles and shift of the batch's view after one step of Levenberg and Marquardt.

    δ = −(JᵀJ + damping·diag JᵀJ)⁻¹ Jᵀr with r = √M − √I, which makes Poisson noise even, and J by forward
    differentiation of the multislice, one column for each number of the `fields` that is `PerView` in the volume:
    the shift alone while that is poor, for angles would follow its errors. No number moves by more than `longest`
    of its natural unit, a pixel (at the rim of the volume). The volume is turned once; then as many shots go side by
    side as keep their waves within `budget` bytes, however large the batch. Pure: `jit` it.
    """
    names = [n for n in fields if isinstance(getattr(model.specimen, n), PerView)]
    if not names:
        raise ValueError(
            f"of {', '.join(fields)} nothing differs from view to view in the specimen; give them PerView"
        )
    natural = natural_units(eqx.filter(model, eqx.is_inexact_array)).specimen
    units = [getattr(natural, n).values for n in names]
    values = [getattr(model.specimen, n).values for n in names]
    sizes = [math.prod(v.shape[1:]) for v in values]

    def moved(by):
        parts = _split(by, sizes)
        new = [
            v.at[batch.view].add((u * p).reshape(v.shape[1:]).astype(v.dtype))
            for v, u, p in zip(values, units, parts, strict=True)
        ]
        return eqx.tree_at(lambda m: [getattr(m.specimen, n).values for n in names], model, new)

    def sliced(by):
        own = select(moved(by).specimen, PerView, batch.view).slices(model.grid)
        return eqx.partition(own, eqx.is_inexact_array)

    start = jnp.zeros(sum(sizes), values[0].dtype)
    still = select(eqx.tree_at(lambda m: m.specimen, model, None), PerView, batch.view)
    here, turned, fixed = jax.linearize(sliced, start, has_aux=True)
    slopes = jax.lax.map(
        turned, jnp.eye(len(start), dtype=start.dtype)
    )  # of the slices, by every number

    def of_shot(shot):
        """JᵀJ and Jᵀr of one pattern."""
        number, counts, weight = shot

        def residual(parts):
            one, seen = select((still, eqx.combine(parts, fixed)), PerShot, number)
            corner, centre = seen.corner(one.scan.position(), one.grid)
            pattern = simulate_pattern(one, seen, seen.window(corner, one.grid), centre)
            return (
                jnp.sqrt(weight)
                * (jnp.sqrt(jnp.maximum(pattern, 0) + 1e-6) - jnp.sqrt(counts + 1e-6)).ravel()
            )

        r, push = jax.linearize(residual, here)
        jacobian = jax.lax.map(push, slopes)
        return jnp.matmul(jacobian, jacobian.T, precision="highest"), jnp.matmul(
            jacobian, r, precision="highest"
        )

    size = shots_within(still.probe, model.grid, len(here.transmission), budget)
    normal, right = jax.lax.map(of_shot, (batch.shots, batch.counts, batch.weight), batch_size=size)
    normal, right = jnp.sum(normal, 0), jnp.sum(right, 0)
    guard = (damping + 1e-6) * jnp.diag(normal) + 1e-12 * jnp.trace(normal)
    blind = jnp.trace(normal) == 0  # a view that meets vacuum alone shows nothing of its pose
    step = -jnp.linalg.solve(normal + jnp.diag(jnp.where(blind, 1.0, guard)), right)
    return moved(step * jnp.minimum(1.0, longest / jnp.maximum(jnp.max(jnp.abs(step)), 1e-30)))


def shots_within(probe: AbstractProbe, grid: Grid, slices: int, budget: float) -> int:
    """How many shots' waves, kept in every slice for the derivatives, fit into a budget [bytes]; one at least."""
    waves: Any = eqx.filter_eval_shape(lambda p: select(p, PerShot, 0).spectrum(grid), probe)
    return max(1, int(budget / (KEPT * slices * math.prod(waves.shape) * waves.dtype.itemsize)))


def shift_step(model: Model, batch: Batch, budget: float = BUDGET) -> Model:
    """The model with the shift of the batch's view after twice its Newton step: a volume that was reconstructed with
    the wrong shift has followed it half of the way."""
    before: Any = model.specimen
    after: Any = pose_step(model, batch, ("shift",), budget=budget).specimen
    here, there = before.shift.values, after.shift.values
    return eqx.tree_at(lambda m: m.specimen.shift.values, model, 2 * there - here)


STEPS = {"shifts": eqx.filter_jit(shift_step), "all": eqx.filter_jit(pose_step)}


def posed(
    model: Model,
    data: Dataset,
    kind: str,
    count: int = 48,
    seed: int | tuple[int, ...] = 0,
    shots=None,
    budget: float = BUDGET,
) -> Model:
    """The model after a step of every view, "shifts" or "all", each from `count` patterns drawn by lot, of all
    patterns or of `shots` (a list over views; a view without any stays where it is)."""
    rng = np.random.default_rng(seed)
    allowed = [np.arange(n) for n in data.n_shots] if shots is None else shots
    size = min(count, max(map(len, allowed)))
    for view, mine in enumerate(allowed):
        drawn = np.sort(rng.permutation(mine)[:count])
        if len(drawn):
            model = STEPS[kind](model, make_batch(data, view, drawn, size), budget=budget)
    return copy_for_donation(model)


def without_drift(after: Model, before: Model) -> Model:
    """`after` without what its views have moved all alike from where they stood `before`, which patterns cannot tell
    from a volume that moves: a shift of the whole, τ_l = Π R_l t, and a rotation of the whole, R_l Q."""
    new, old = (_euler_and_shift(model) for model in (after, before))
    common = common_move(new - old, old)
    names = [n for n in FIELDS if isinstance(getattr(after.specimen, n), PerView)]
    parts = {"tilt": common[:, 0], "angles": common[:, 1:3], "shift": common[:, 3:]}
    kept = [
        getattr(after.specimen, n).values
        - jnp.asarray(parts[n], getattr(after.specimen, n).values.dtype)
        for n in names
    ]
    return eqx.tree_at(lambda m: [getattr(m.specimen, n).values for n in names], after, kept)


def _euler_and_shift(model: Model) -> np.ndarray:
    """Tilt, angles about x and z [rad] and shift [Å] of every view."""
    volume: Any = model.specimen
    views = [select(volume, PerView, view) for view in range(axis_size(volume, PerView))]
    return np.array(
        [[v.tilt, *(np.zeros(2) if v.angles is None else v.angles), *v.shift] for v in views], float
    )


def reset_volume(model: Model) -> Model:
    """The same views of vacuum: volumes grow anew where poses were too poor to keep what they made."""
    return replace(model, specimen=model.specimen.map_stacks(jnp.zeros_like))


def _split(by, sizes):
    ends = [sum(sizes[: n + 1]) for n in range(len(sizes))]
    return [by[end - size : end] for end, size in zip(ends, sizes, strict=True)]
