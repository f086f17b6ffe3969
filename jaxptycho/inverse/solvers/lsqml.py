"""Least-squares maximum likelihood (LSQ-ML, Odstrčil et al., Opt. Express 26, 3108 (2018)).

Specimen, probe, positions and other parts before the detector move together, each along a
direction d_j of its own, by step lengths α_j that are optimal jointly. Derived here from the bound
of the amplitude loss (`curvature`), without the formulas of the paper, whose eq. 22 its users
report to be wrong:

    L(α) ≤ 1/B Σ_p ‖χ_p − Σ_j α_j T_pj‖²,   χ_p = ψ′_p − ψ_p,   T_pj = (∂ψ_p/∂θ_j) d_j,

with ψ_p the exit wave of shot p (all its modes, behind all slices), ψ′_p its projection on the
measured moduli, and T_pj its tangent, by forward differentiation of the forward model itself. The
minimum solves the normal equations Σ_k A_jk α_k = b_j with A_jk = Re Σ_p ⟨T_pj|T_pk⟩ and
b_j = Re Σ_p ⟨T_pj|χ_p⟩ = −B/2·∂L/∂α_j: the right-hand side is the gradient's, so penalties count.
Slices, modes and parts share what they explain together, no step has to be divided by their number.

The directions: gradient over curvature for specimen and probe, gradient for other parts.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from ...data import Batch
from ...model import Model, waves
from ...physics.types import PyTree
from ..least_squares import solve_damped
from .acceleration import directional_slope
from .curvature import (
    AT_ONCE,
    batch_illumination,
    mixed,
    require_regularisation,
    squared_object,
    step_of_probe,
    step_of_specimen,
)
from .engine import engine, without_state
from .mpie import periodic_momentum

PARTS = ("specimen", "probe", "scan", "propagator")  # that act before the detector
DAMPING = 1e-3  # relative to the diagonal of the normal equations


def lsqml(
    regularisation: float = 0.1, friction: float = 0.5, period: int = 8
) -> optax.GradientTransformationExtraArgs:
    """LSQ-ML for the loss `misfit(amplitude)`: joint optimal steps of all parts that it is given.

    `per_part({("specimen", "probe", "scan"): lsqml()})`. `regularisation` in (0, 1] is the least
    curvature of a pixel over the largest, `friction` and `period` those of `mpie`.
    """
    require_regularisation(regularisation)
    return periodic_momentum(_joint(regularisation), friction, period)


def _joint(regularisation: float) -> optax.GradientTransformationExtraArgs:
    def init(params: PyTree) -> Any:
        if jax.tree.leaves(params.detector):
            raise ValueError(
                "LSQ-ML moves what the exit wave depends on; give the detector another optimiser"
            )
        return without_state(params)

    def update(grads: PyTree, state: Any, model: Any, batch: Batch, units: PyTree | None) -> Any:
        direction = directions(grads, model, batch, units, regularisation)
        steps = joint_steps(grads, direction, model, batch, units)
        updates = direction
        for part, length in steps.items():
            moved = jax.tree.map(
                lambda d, length=length: (length * d).astype(d.dtype), getattr(direction, part)
            )
            updates = eqx.tree_at(lambda u, part=part: getattr(u, part), updates, moved)
        return updates, state

    return engine(update, init)


def directions(
    grads: PyTree, model: Model, batch: Batch, units: PyTree | None, regularisation: float
) -> PyTree:
    """Direction of every part: gradient over curvature, or the gradient where none is known."""
    found = jax.tree.map(jnp.negative, grads)
    half = 0.5 * jnp.sum(batch.weight)
    if jax.tree.leaves(grads.specimen):
        step = half / mixed(batch_illumination(model, batch), regularisation)
        found = step_of_specimen(found, grads, model, step)
    if jax.tree.leaves(grads.probe):
        step = half / mixed(squared_object(model, batch), regularisation)
        found = step_of_probe(found, grads, units, step)
    return found


def joint_steps(
    grads: PyTree, direction: PyTree, model: Model, batch: Batch, units: PyTree | None
) -> dict[str, Array]:
    """Step length α of every part that moves along its direction."""
    parts = [part for part in PARTS if jax.tree.leaves(getattr(grads, part))]
    physical = [_physical(direction, model, units, part) for part in parts]
    half = 0.5 * jnp.sum(batch.weight)
    right = -half * jnp.stack(
        [directional_slope(getattr(grads, part), getattr(direction, part)) for part in parts]
    )
    normal = _normal_matrix(model, batch, parts, physical)
    return dict(zip(parts, solve_damped(normal, right, DAMPING), strict=True))


def _normal_matrix(
    model: Model, batch: Batch, parts: list[str], directions: list[PyTree]
) -> Float[Array, "j j"]:
    """Normal matrix Re Σ_p ⟨T_pj|T_pk⟩ of the tangents of the exit waves."""

    def of_shot(shot: Any) -> Array:
        index, weight = shot

        def tangent(part: str, along: PyTree) -> Array:
            def wave(value: PyTree) -> Array:
                moved = eqx.tree_at(lambda m: getattr(m, part), model, value)
                return waves(moved, index[None], batch.view)[0]

            return eqx.filter_jvp(wave, (getattr(model, part),), (along,))[1]

        tangents = jnp.stack([tangent(*pair) for pair in zip(parts, directions, strict=True)])
        return weight * jnp.einsum("jmyx,kmyx->jk", jnp.conj(tangents), tangents).real

    shots = jnp.asarray(batch.shots), jnp.asarray(batch.weight)
    return jnp.sum(jax.lax.map(of_shot, shots, batch_size=AT_ONCE), 0)


def _physical(direction: PyTree, model: Model, units: PyTree | None, part: str) -> PyTree:
    """Direction of a part in physical units, zero where nothing moves."""

    def in_units(along: Any, now: Array, unit: Any) -> Array:
        if isinstance(along, optax.MaskedNode):
            return jnp.zeros_like(now)
        return (along * unit).astype(now.dtype)

    now = eqx.filter(getattr(model, part), eqx.is_inexact_array)
    size = jax.tree.map(lambda _: 1.0, now) if units is None else getattr(units, part)
    masked = lambda node: isinstance(node, optax.MaskedNode)  # noqa: E731
    return jax.tree.map(in_units, getattr(direction, part), now, size, is_leaf=masked)
