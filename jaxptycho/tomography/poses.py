"""How every view stands, by Gauss and Newton from its patterns: tilt, angles and shift are few, and strongly coupled."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..data import Batch, Dataset, make_batch
from ..inverse.solve import owned
from ..inverse.units import natural_units
from ..model import Model, predict
from ..parts.indexed import PerView

FIELDS = ("tilt", "angles", "shift")


def pose_step(
    model: Model, batch: Batch, fields: tuple[str, ...] = FIELDS, damping: float = 1e-2, longest: float = 1.0
) -> Model:
    """The model with the tilt, angles and shift of the batch's view after one step of Levenberg and Marquardt.

    δ = −(JᵀJ + damping·diag JᵀJ)⁻¹ Jᵀr with r = √M − √I, which makes Poisson noise even, and J by forward
    differentiation of the multislice, one column for each number of the `fields` that is `PerView` in the volume:
    the shift alone while that is poor, for angles would follow its errors. No number moves by more than `longest`
    of its natural unit, a pixel (at the rim of the volume). Pure: `jit` it.
    """
    names = [n for n in fields if isinstance(getattr(model.specimen, n), PerView)]
    if not names:
        raise ValueError(f"of {', '.join(fields)} nothing differs from view to view in the specimen; give them PerView")
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

    def residual(by):
        seen = jnp.sqrt(jnp.maximum(predict(moved(by), batch.shots, batch.view), 0) + 1e-6)
        return (jnp.sqrt(batch.weight)[:, None, None] * (seen - jnp.sqrt(batch.counts + 1e-6))).ravel()  # pyright: ignore[reportOperatorIssue]

    start = jnp.zeros(sum(sizes), values[0].dtype)
    r, push = jax.linearize(residual, start)
    jacobian = jax.lax.map(push, jnp.eye(len(start), dtype=start.dtype))
    normal = jnp.matmul(jacobian, jacobian.T, precision="highest")
    guard = (damping + 1e-6) * jnp.diag(normal) + 1e-12 * jnp.trace(normal)
    step = -jnp.linalg.solve(normal + jnp.diag(guard), jnp.matmul(jacobian, r, precision="highest"))
    return moved(step * jnp.minimum(1.0, longest / jnp.maximum(jnp.max(jnp.abs(step)), 1e-30)))


def shift_step(model: Model, batch: Batch) -> Model:
    """The model with the shift of the batch's view after twice its Newton step: a volume that was reconstructed with
    the wrong shift has followed it half of the way."""
    here, there = model.specimen.shift.values, pose_step(model, batch, ("shift",)).specimen.shift.values  # type: ignore
    return eqx.tree_at(lambda m: m.specimen.shift.values, model, 2 * there - here)


STEPS = {"shifts": eqx.filter_jit(shift_step), "all": eqx.filter_jit(pose_step)}


def posed(
    model: Model, data: Dataset, kind: str, count: int = 48, seed: int | tuple[int, ...] = 0, shots=None
) -> Model:
    """The model after a step of every view, "shifts" or "all", each from `count` patterns drawn by lot, of all
    patterns or of `shots` (a list over views)."""
    rng = np.random.default_rng(seed)
    allowed = [np.arange(n) for n in data.n_shots] if shots is None else shots
    size = min(count, max(map(len, allowed)))
    for view, mine in enumerate(allowed):
        model = STEPS[kind](model, make_batch(data, view, np.sort(rng.permutation(mine)[:count]), size))
    return owned(model)


def emptied(model: Model) -> Model:
    """The same views of vacuum: volumes grow anew where poses were too poor to keep what they made."""
    return eqx.tree_at(lambda m: m.specimen.potential, model, jnp.zeros_like(model.specimen.potential))  # type: ignore


def _split(by, sizes):
    ends = [sum(sizes[: n + 1]) for n in range(len(sizes))]
    return [by[end - size : end] for end, size in zip(ends, sizes, strict=True)]
