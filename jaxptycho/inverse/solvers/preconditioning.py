"""Filters of the specimen's gradient before an optimiser: optax transformations for `per_part`.

`per_part(specimen=optax.chain(measured(21.4), optax.adam(1e-2)))`. `PRECONDITIONERS` lists
their builders by the names that job files use; they follow the protocol of `constraints`: plain
numbers by keyword, the unit in the key.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from ...model import Model
from ...parts.indexed import PerView, select
from ...physics.types import PyTree, Stack
from ..constraints import filters


def measured(
    semiangle_mrad: float, thickness_angstrom: float | None = None
) -> optax.GradientTransformationExtraArgs:
    """Gradient times W(k) of `filters.measured_part` in the beam frame of its view.

    Each view updates only the frequencies that it can measure with this semiangle; the entire
    spectrum of a volume rotates with the view. Frequencies |k_z| up to 1/2t of a specimen of
    `thickness_angstrom` t count as measured: otherwise the gaps between the cones of few views
    would hardly be updated.
    """
    semiangle = 1e-3 * semiangle_mrad
    slab = 0.0 if thickness_angstrom is None else 0.5 / thickness_angstrom

    def change(gradient: Stack, model: Model, batch: Any) -> Stack:
        specimen = model.specimen
        grid = model.grid
        shape = gradient.shape
        rotation = select(specimen, PerView, batch.view).stack_rotation()
        if rotation is None:
            spacing = specimen.spacing(grid)
            kept = filters.measurable(shape, grid.pixel, spacing, semiangle, slab)
            return filters.filter_volume(gradient, kept)
        voxel = specimen.voxel_size(grid)
        kept = filters.measurable_turned(shape, voxel, rotation, semiangle, slab)
        return filters.filter_periodic(gradient, kept)

    def update(
        updates: PyTree,
        state: Any,
        params: PyTree | None = None,
        *,
        model: Model,
        batch: Any,
        **extra: Any,
    ) -> Any:
        del params, extra
        return of_stacks(updates, lambda gradient: change(gradient, model, batch)), state

    return _transformation(lambda params: optax.EmptyState(), update)


def shell_growth(
    first_inverse_angstrom: float,
    last_inverse_angstrom: float,
    steps: int,
    edge_inverse_angstrom: float = 0.0,
) -> optax.GradientTransformationExtraArgs:
    """Gradient low-passed at a cut-off |k| that grows from `first` to `last` in `steps` steps.

    Coarse shells of the specimen converge before finer ones are updated, as in resolution
    marching.
    """
    if not 0 < first_inverse_angstrom <= last_inverse_angstrom or steps < 1:
        raise ValueError(
            f"shells that grow from {first_inverse_angstrom} to {last_inverse_angstrom} 1/Å in "
            f"{steps} steps; give 0 < first ≤ last, and at least one step"
        )
    cutoff_at: Any = optax.linear_schedule(first_inverse_angstrom, last_inverse_angstrom, steps)

    def update(
        updates: PyTree, state: Any, params: PyTree | None = None, *, model: Model, **extra: Any
    ) -> Any:
        del params, extra

        def change(gradient: Stack) -> Stack:
            k = filters.volume_frequency(
                gradient.shape, model.grid.pixel, model.specimen.spacing(model.grid)
            )
            return filters.filter_volume(
                gradient, filters.below(k, cutoff_at(state.count), edge_inverse_angstrom)
            )

        return of_stacks(updates, change), optax.ScaleByScheduleState(state.count + 1)

    return _transformation(
        lambda params: optax.ScaleByScheduleState(jnp.zeros([], jnp.int32)), update
    )


def of_stacks(updates: Model, change: Callable[[Stack], Stack]) -> Model:
    """Updates of a model with `change`, which is linear, applied to the specimen's 3D arrays."""

    def of_array(array: Any) -> Any:
        if array.ndim != 3:
            return array
        if jnp.iscomplexobj(array):
            return jax.lax.complex(of_array(array.real), of_array(array.imag))
        return change(array).astype(array.dtype)

    specimen = jax.tree.map(of_array, updates.specimen)
    return eqx.tree_at(lambda m: m.specimen, updates, specimen)


PRECONDITIONERS: dict[str, Callable[..., optax.GradientTransformationExtraArgs]] = {
    builder.__name__: builder for builder in (measured, shell_growth)
}


def _transformation(
    init: Callable[[PyTree], Any], update: Callable[..., Any]
) -> optax.GradientTransformationExtraArgs:
    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore
