"""Step `views`: every view of a tilt series separately, for its projection and its probe."""

from dataclasses import replace
from functools import partial
from typing import Literal

import jax.numpy as jnp
import numpy as np
import optax

from ...data import Dataset
from ...distributed.multihost import run_on_rank0
from ...inverse import losses
from ...inverse.losses import LOSSES
from ...inverse.solvers.layerwise_adam import layerwise_adam
from ...inverse.step import per_part
from ...io.results import load, write
from ...model import Model
from ...parts.probe import AbstractProbe
from ...runs.state import State, Stopped
from ...start.reslice import with_slices
from ...tomography.views import order_of_views, reconstruct_views
from ..context import Context, Step
from ..schema import key, one_of
from ..sections import Setup
from ..series import empty_volume, series_model, tilts_of, view_model, volume_of, voxel_of


class ViewsStep(Step):
    """Reconstruct every view separately, for its projection and its probe."""

    kind: Literal["views"]
    slices: int = key(
        "slices of its phase, whose sum is the projection; more than one where the specimen is "
        "thick",
        1,
        ge=1,
    )
    thickness_angstrom: float | None = key(
        "thickness of all these slices; default: the depth of the volume", None, 60.0, gt=0
    )
    epochs: int = key("epochs of every view", 30, ge=1)
    batch: int = key("shots of an optimiser step", 64, ge=1)
    loss: one_of(LOSSES, "loss") = key(f"{', '.join(LOSSES)}", "amplitude")
    specimen_rate: float = key(
        "rate of layerwise_adam on the phase of all slices together, in natural units", 2e-2, ge=0
    )
    probe_rate: float = key("rate of adam on the probe", 1e-3, ge=0)

    def preview(self, model: Model | None, context: Context) -> Model | None:
        volume_of(context.job)
        return context.first_model()

    def run(self, state: State, context: Context) -> State:
        source = context.source.without(state.left_out)
        data = source.data.subset(source.learn)
        known = read_views(context)
        depth = empty_volume(context.job, data).shape[0] * voxel_of(context.job, data)[0]
        first = partial(sliced_view, context.job, self.slices, self.thickness_angstrom or depth)
        rate = self.specimen_rate / self.slices
        optimiser = per_part(specimen=layerwise_adam(rate), probe=optax.adam(self.probe_rate))
        loss = losses.misfit(LOSSES[self.loss])
        settings = {"known": dict(known), "first": first, "seed": context.job.run.seed}
        for view, model in reconstruct_views(
            loss, data, optimiser, self.batch, self.epochs, **settings
        ):
            if view not in known:
                run_on_rank0(partial(write, context.folder / f"view_{view:02d}.h5", model))
            known[view] = model
            tilt = np.rad2deg(tilts_of(data)[view])
            context.listener.say(f"view {view}, at {tilt:+.1f}°, reconstructed separately")
            if why := context.stop():
                raise Stopped(why, replace(state, views=known))
        probes = probes_of(context.job, context.data, known)
        model = series_model(context.job, context.data, probes=probes)
        return replace(state, model=model, views=known)


def read_views(context: Context) -> dict[int, Model]:
    """The views that are done, by number."""
    files = sorted(context.folder.glob("view_*.h5"))
    return {int(path.stem.split("_")[1]): load(path) for path in files}


def sliced_view(job: Setup, slices: int, thickness: float, data: Dataset) -> Model:
    """First model of one view with `slices` of a `thickness` [Å] in all, and its probe at the
    first.
    """
    thin = view_model(job, data)
    specimen = replace(thin.specimen, thickness=jnp.asarray(thickness, float))
    model = with_slices(replace(thin, specimen=specimen), slices)
    return replace(model, probe=model.probe.propagate(model.grid, -depth_of_middle(model)))


def depth_of_middle(model: Model) -> float:
    """Distance [Å] from the first slice of a separate view to the middle of all slices."""
    return float(jnp.sum(model.specimen.thicknesses(model.grid)[:-1])) / 2


def probes_of(
    job: Setup, data: Dataset, views: dict[int, Model], left_out: tuple[int, ...] = ()
) -> list[AbstractProbe]:
    """Probes of separate views at the height of the tilt axis: one per view, or the last one."""
    if job.vary.get("probe") == "view":
        chosen = range(data.n_views)
    else:  # each view continued with the probe of the one before
        chosen = [view for view in order_of_views(data) if view not in left_out][-1:]
    models = [views[view] for view in chosen]
    return [model.probe.propagate(model.grid, depth_of_middle(model)) for model in models]
