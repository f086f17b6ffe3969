"""Step `linear`: a first volume from the aligned projections of a tilt series."""

from dataclasses import replace
from typing import Any, ClassVar, Literal

import jax.numpy as jnp
import numpy as np

from ...model import Model
from ...parts.indexed import PerView, plain
from ...runs.loop import with_something
from ...runs.state import State
from ...tomography import linear
from ...tomography.projections import Geometry, Projector, rotate_about_beam
from ...tomography.views import projected_views
from ..context import Context, Step
from ..schema import key
from ..series import tilt_axis, volume_of, voxel_of
from .align import FULL_WEIGHT


class LinearStep(Step):
    """Reconstruct a first volume from the aligned projections."""

    needs: ClassVar = ("views",)
    kind: Literal["linear"]
    method: Literal["fista", "sirt", "cgls"] = key(
        "fista (nowhere negative), sirt or cgls", "fista"
    )
    iterations: int = key("iterations of the method", 20, ge=1)
    total_variation: float = key("weight of the total variation, for fista", 0.0, ge=0)

    def preview(self, model: Model | None, context: Context) -> Model | None:
        volume_of(context.job)
        model = context.first_model() if model is None else model
        if model.specimen.listed_atoms() is not None:
            raise ValueError(
                f"step.{context.number} reconstructs a volume, and the specimen is atoms by then; "
                "put it before the step that traces them"
            )
        return with_something(model)

    def run(self, state: State, context: Context) -> State:
        model: Any = state.model
        data = context.data
        axis = tilt_axis(data)
        start = model.specimen.potential
        field = (start.shape[1], start.shape[2])
        views = projected_views([state.views[view] for view in range(data.n_views)], field, axis)
        geometry = rotate_about_beam(geometry_of(model), axis)
        operator = Projector(geometry, voxel_of(context.job, data), field)
        weights = (views.weights > FULL_WEIGHT).astype(np.float32)
        weights[list(state.left_out)] = 0
        more = {"tv": self.total_variation} if self.method == "fista" else {}
        solve = getattr(linear, self.method)
        found = solve(
            operator,
            views.projections,
            start,
            self.iterations,
            weights=weights,
            free="constant",
            **more,
        )
        specimen = replace(model.specimen, potential=jnp.asarray(found.volume, start.dtype))
        return replace(state, model=replace(model, specimen=specimen))


def geometry_of(model: Model) -> Geometry:
    """Tilts, angles and shifts of the views of a volume."""
    volume: Any = model.specimen
    shift = volume.shift
    views = len(plain(volume.tilt))
    shifts = plain(shift) if isinstance(shift, PerView) else jnp.tile(shift, (views, 1))
    return Geometry(
        plain(volume.tilt), None if volume.angles is None else plain(volume.angles), shifts
    )
