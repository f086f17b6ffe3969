"""Step `align`: the geometry of the views of a tilt series, from their projections."""

import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from ...data import Dataset
from ...distributed.multihost import run_on_rank0
from ...io.atomic_write import write_table
from ...model import Model
from ...runs.state import State
from ...tomography.alignment import Aligned, align
from ...tomography.extent import particle_extent, vacuum_around
from ...tomography.projections import Geometry, rotate_about_beam
from ...tomography.series import at_faces
from ...tomography.views import Views, projected_views
from ..context import Context, Step
from ..schema import key
from ..sections import Setup, with_keys
from ..series import (
    empty_volume,
    reach_of,
    series_model,
    tilt_axis,
    tilts_of,
    volume_of,
    voxel_of,
    with_angles,
)
from .views import probes_of

ALIGNMENT = "alignment.csv"
FULL_WEIGHT = 0.99  # weight from which a pixel of a projection is trusted
BEYOND_SCAN = 2.0  # Å by which a projection reaches beyond the scan
AROUND = 3.0  # Å of vacuum on all sides of a particle
OUTSIDE = 0.35  # of the potential within, more than noise beyond a face; 0.32 after a failed view
Bins = Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)]


class AlignStep(Step):
    """Find the shifts (and angles) of all views from their projections."""

    needs: ClassVar = ("views",)
    kind: Literal["align"]
    rounds: int = key("alternations of volume and pose updates per binning level", 5, ge=1)
    iterations: int = key("iterations of the volume in every round", 8, ge=1)
    bins: Bins = key("binning factors of the voxels, coarse to fine", [4, 2])
    coarse: bool = key("find shifts by correlation first", True)
    common_field: bool | None = key(
        "compare views only where neighbours, then all, see the same; default: where "
        "specimen.isolated = false",
        None,
        True,
    )
    angles: bool = key(
        "find three angles of every view, too, which patterns show better than projections", False
    )
    angle_prior_deg: float = key("standard deviation of an angle from the nominal one", 0.3, gt=0)
    drop: bool = key(
        "leave views that do not fit the others out of all later steps, too; the alignment never "
        "uses them",
        True,
    )

    def preview(self, model: Model | None, context: Context) -> Model | None:
        volume_of(context.job)
        return model

    def run(self, state: State, context: Context) -> State:
        data = context.data
        models = [state.views[view] for view in range(data.n_views)]
        axis = tilt_axis(data)
        field, shape = fields_of(context.job, data)
        views = projected_views(models, field, axis)
        keys = surroundings(context.job, data, views)
        found = self._aligned(views, shape, with_keys(context.job, keys), data)
        in_patterns = found._replace(geometry=rotate_about_beam(found.geometry, -axis))
        run_on_rank0(partial(write_alignment, context.folder / ALIGNMENT, in_patterns))
        for name, value in found.summary().items():
            context.listener.say(f"{name}: {value}")
        keys |= size_found(with_keys(context.job, keys), data, views, found)
        job = with_keys(context.job, keys)
        for path, value in keys.items():
            context.listener.say(f"{path} = {value}")
        if volume_of(job).isolated:
            warn_outside(job, self.bins[-1], found, data)
        if doubt := found.doubt(float(np.rad2deg(axis))):
            warnings.warn(doubt, stacklevel=2)
        left_out = tuple(sorted(found.bad)) if self.drop else ()
        geometry = with_angles(volume_of(job), in_patterns.geometry)
        probes = probes_of(job, data, state.views, left_out)
        model = series_model(job, data, geometry, probes)
        return replace(state, model=model, left_out=left_out, found=state.found | keys)

    def _aligned(
        self, views: Views, shape: tuple[int, int, int], job: Setup, data: Dataset
    ) -> Aligned:
        extended = not volume_of(job).isolated
        return align(
            views.projections,
            Geometry(tilts_of(data)),
            voxel_of(job, data),
            shape,
            weights=views.weights > FULL_WEIGHT,
            free="constant",
            bins=self.bins,
            turns=self.rounds,
            iterations=self.iterations,
            angles=self.angles,
            prior=float(np.deg2rad(self.angle_prior_deg)),
            coarse=self.coarse,
            extended=extended if self.common_field is None else self.common_field,
        )


def fields_of(job: Setup, data: Dataset) -> tuple[tuple[int, int], tuple[int, int, int]]:
    """Pixels (y, x) that all scans reach, and voxels of a volume that fills them at every tilt."""
    voxel = np.array(voxel_of(job, data))
    tilts = tilts_of(data)
    y, x = (int(n) for n in 2 * np.floor((reach_of(data) + BEYOND_SCAN) / voxel[1:]))
    width = x * voxel[2]
    depth = width * (1 - np.cos(tilts)) / np.maximum(np.abs(np.sin(tilts)), 1e-3)
    z = max(float(np.max(depth)), empty_volume(job, data).shape[0] * voxel[0]) / voxel[0]
    return (y, x), (int(z) + 2, y, x)


def surroundings(job: Setup, data: Dataset, views: Views) -> dict[str, Any]:
    """Whether vacuum is around the specimen, as the views show where the job leaves it open."""
    if volume_of(job).isolated is not None:
        return {}
    y, x = voxel_of(job, data)[1:]
    trusted = views.weights > FULL_WEIGHT
    return {"specimen.isolated": vacuum_around(views.projections, trusted, (y, x))}


def size_found(job: Setup, data: Dataset, views: Views, found: Aligned) -> dict[str, Any]:
    """Size of a particle and some vacuum, as the aligned views show, if the job leaves it open."""
    section = volume_of(job)
    if not section.isolated or section.size_angstrom is not None:
        return {}
    fitting = np.setdiff1d(np.arange(data.n_views), sorted(found.bad))
    geometry = Geometry(found.geometry.tilts[fitting], None, found.geometry.shifts[fitting])
    y, x = voxel_of(job, data)[1:]
    trusted = views.weights[fitting] > FULL_WEIGHT
    extent = particle_extent(views.projections[fitting], trusted, geometry, (y, x))
    size = [float(f"{length + 2 * AROUND:.4g}") for length in extent]
    return {"specimen.size_angstrom": size}


def warn_outside(job: Setup, coarser: int, found: Aligned, data: Dataset) -> None:
    """Warn where the aligned volume, which holds all that was scanned, is not empty outside of the
    job's."""
    voxel = np.array(voxel_of(job, data))
    size = voxel * empty_volume(job, data).shape
    beyond = at_faces(np.asarray(found.volume), coarser * voxel, size, reach_of(data))
    axis, side = np.unravel_index(np.argmax(beyond), beyond.shape)
    if beyond[axis, side] > OUTSIDE:
        place = (2 * int(side) - 1) * size[axis + 1] / 2
        warnings.warn(
            f"the specimen does not fit into the volume of {' × '.join(f'{s:.4g}' for s in size)} "
            f"Å (z, y, x): beyond its face at {'yx'[axis]} = {place:+.4g} Å the views show "
            f"{beyond[axis, side]:.2f} of the potential within; make specimen.size_angstrom "
            "larger, or leave it out; otherwise density inside must account for scattering outside",
            stacklevel=2,
        )


def write_alignment(path: Path, found: Aligned) -> None:
    """Write tilt, angles, shift and fit of every view as a table."""
    columns = ["view", "tilt_deg", "about_x_deg", "about_z_deg", "shift_y", "shift_x"]
    columns += ["misfit", "fits", "explained"]
    geometry = found.geometry
    views = range(len(geometry.tilts))
    small = np.zeros((len(views), 2)) if geometry.angles is None else geometry.angles
    angles = np.rad2deg(np.column_stack([geometry.tilts, small]))
    explained = np.full(len(views), np.nan) if found.held_out is None else found.held_out
    numbers = np.column_stack([angles, geometry.shifts, found.misfits])
    rows = (
        [view, *map(float, numbers[view]), view not in found.bad, float(explained[view])]
        for view in views
    )
    write_table(path, columns, rows)
