"""Projections between two sets: the difference map and RAAR, over the exit waves of all shots.

Of the exit waves ψ of all shots, Π_F makes those with the measured moduli (`moduli`), Π_O those
that are products of one probe and one specimen, found by a few alternations of

    O = Σ P*ψ / Σ|P|²,   P = Σ O*ψ / Σ|O|².

The difference map (Thibault et al., Ultramicroscopy 109, 338 (2009)) iterates
ψ ← ψ + β(Π_F(2Π_Oψ − ψ) − Π_Oψ). RAAR (Luke, Inverse Problems 21, 37 (2005)) iterates
ψ ← βψ + (1 − 2β)Π_Fψ + βΠ_O(2Π_Fψ − ψ), that is ½β(R_O R_F + I) + (1 − β)Π_F with reflections
R = 2Π − I. Incoherent modes belong to the wave of a shot (Thibault & Menzel 2013).

Both leave bad minima that hold a descent. A batch has to hold all shots, and their waves are in
memory: shots × modes × pixels × 8 bytes. In Π_O a thick specimen takes its share slice by slice
(`three_pie`), which is no exact projection.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Complex

from ...data import Batch
from ...model import Model, waves
from ...parts.indexed import PerShot, PerView, axis_size, select
from ...physics.types import PyTree
from .curvature import mixed, require_supported, squared_object
from .engine import engine
from .moduli import moduli_residual
from .three_pie import add_to_probe, add_to_specimen, backward, beams_of, on_axis

ALTERNATIONS = 3  # of specimen and probe in Π_O
REGULARISATION = 0.01  # least curvature of a pixel in Π_O, over the largest
ExitWaves = Complex[Array, "b m y x"]
Project = Callable[[ExitWaves], ExitWaves]
Rule = Callable[[ExitWaves, ExitWaves, Project], tuple[ExitWaves, ExitWaves]]


class Iterate(NamedTuple):
    """State of an iteration of projections."""

    waves: Complex[Array, "shot m y x"]
    begun: Bool[Array, " shot"]  # whether the waves of a shot are known


def difference_map(shots: int, beta: float = 0.9) -> optax.GradientTransformationExtraArgs:
    """Difference map of the exit waves of `shots`, for specimen and probe together."""

    def rule(wave: ExitWaves, product: ExitWaves, measured: Project) -> Any:
        new = wave + beta * (measured(2 * product - wave) - product)
        return new, new

    return _iteration(shots, beta, rule)


def raar(shots: int, beta: float = 0.8) -> optax.GradientTransformationExtraArgs:
    """Relaxed averaged alternating reflections of the exit waves of `shots`."""

    def rule(wave: ExitWaves, product: ExitWaves, measured: Project) -> Any:
        new = beta * wave + (1 - 2 * beta) * measured(wave) + beta * product
        return new, 2 * measured(new) - new

    return _iteration(shots, beta, rule)


def _iteration(shots: int, beta: float, rule: Rule) -> optax.GradientTransformationExtraArgs:
    """Iteration of a rule: new waves and what Π_O is applied to, of the waves and last product."""
    if not 0 < beta <= 1:
        raise ValueError(f"beta is {beta}; give a number above 0 and up to 1")

    def init(params: PyTree) -> Iterate:
        require_supported(params)
        names = params.probe.pixelwise if jax.tree.leaves(params.probe) else ()
        if not (names and jax.tree.leaves(params.specimen)):
            raise ValueError(
                "projections update specimen and probe together; give them both in one group"
            )
        modes = jax.tree.leaves(getattr(params.probe, names[0]))[0]
        waves = jnp.zeros((shots, *modes.shape[-3:]), modes.dtype)
        return Iterate(waves, jnp.zeros(shots, bool))

    def update(
        grads: PyTree, state: Iterate, model: Any, batch: Batch, units: PyTree | None
    ) -> Any:
        if axis_size(model.scan, PerShot) != shots or axis_size(model, PerView) > 1:
            raise ValueError(
                f"projections of {shots} shots came with a model of "
                f"{axis_size(model.scan, PerShot)} in {axis_size(model, PerView)} views; give the "
                "number of shots of a scan of one view"
            )
        numbers = jnp.asarray(batch.shots)
        product = waves(model, numbers)
        stored = state.waves[numbers]
        before = jnp.where(state.begun[numbers][:, None, None, None], stored, product)
        after, target = rule(before, product, lambda wave: measured_waves(model, batch, wave))
        used = jnp.asarray(batch.weight) > 0
        change = jnp.where(used[:, None, None, None], after - stored, 0)
        iterate = Iterate(state.waves.at[numbers].add(change), state.begun.at[numbers].max(used))
        found = factorised(model, batch, target)
        updates = jax.tree.map(jnp.zeros_like, grads)
        fields = {n: getattr(found.specimen, n) for n in model.specimen.pixelwise}
        moved = {
            name: values - getattr(model.specimen, name)
            for name, values in fields.items()
            if values is not None
        }
        updates = add_to_specimen(updates, moved)
        for name in model.probe.pixelwise:
            by = getattr(found.probe, name) - getattr(model.probe, name)
            updates = add_to_probe(updates, by, batch, units)
        return updates, iterate

    return engine(update, init)


def measured_waves(model: Model, batch: Batch, exits: ExitWaves) -> ExitWaves:
    """Π_F: exit waves with the measured moduli."""

    def of_shot(shot: Any) -> Array:
        index, wave, counts = shot
        one, seen = select((model, model.specimen.slices(model.grid)), PerShot, index)
        centre = seen.corner(one.scan.position(), one.grid)[1]
        return wave + moduli_residual(one, wave, centre, counts)

    return jax.vmap(of_shot)((jnp.asarray(batch.shots), exits, jnp.asarray(batch.counts)))


def factorised(model: Model, batch: Batch, exits: ExitWaves) -> Model:
    """Π_O: the model whose exit waves are closest to given ones."""

    def alternation(_: Any, arrays: PyTree) -> PyTree:
        now = eqx.combine(arrays, others)
        sliced = now.specimen.slices(now.grid)
        beams = beams_of(now, sliced, batch)
        beams = beams._replace(residual=exits - waves(now, jnp.asarray(batch.shots)))
        change, left = backward(now, sliced, batch, beams, 1.0, REGULARISATION)
        power = mixed(squared_object(now, batch), REGULARISATION)
        updates = jax.tree.map(jnp.zeros_like, eqx.filter(now, eqx.is_inexact_array))
        updates = add_to_specimen(updates, now.specimen.transmission_change(change))
        updates = add_to_probe(updates, on_axis(now, batch, beams, left) / power, batch, None)
        return eqx.filter(eqx.apply_updates(now, updates), eqx.is_array)

    arrays, others = eqx.partition(model, eqx.is_array)
    return eqx.combine(jax.lax.fori_loop(0, ALTERNATIONS, alternation, arrays), others)
