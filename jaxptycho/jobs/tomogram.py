"""What goes before the end-to-end refinement of a tilt series: views, alignment, a first volume.

Each step hands over all it knows in files of the run's folder, which `inspect` reads and a resumed run does not make
again: `views/view_03.h5`, the result of one view by itself; `alignment.csv`, how every view stands; `start.h5`, the
model of all views that the stages of the job start from.
"""

import csv
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax

from ..data import Dataset
from ..inverse import losses
from ..inverse.solvers.layerwise_adam import even_adam
from ..inverse.step import owned, per_part
from ..io.atomic_write import drafted
from ..io.results import load, write
from ..model import Model
from ..start.guess import guess_model, model_grid, require_room
from ..start.probes import of_every_view, radius_of
from ..start.reslice import with_slices
from ..tomography import linear
from ..tomography.alignment import Aligned, align
from ..tomography.poses import BUDGET, emptied, posed, without_drift
from ..tomography.projections import Geometry, Projector, axis_frame, turned_about_beam
from ..tomography.series import at_faces, first_series, require_field
from ..tomography.views import projected_views, reconstruct_views
from . import build
from .tomogram_schema import TomogramJob

START, ALIGNMENT = "start.h5", "alignment.csv"
SURE, BEYOND = 0.99, 2.0  # weight from which a projection is trusted, and how far beyond the scan one reaches [Å]
OUTSIDE = 0.35  # of the potential within, from which it is more than noise beyond a face; 0.32 where a view has failed
Stop = Callable[[], str | None]
Say = Callable[[str], None]


def prepare(job: TomogramJob, data: Dataset, shots, folder: Path, say: Say, stop: Stop) -> str | None:
    """None once `start.h5` lies in the folder, or why it stopped before; views learn from `shots` alone."""
    if (folder / START).exists():
        return None
    geometry, volume, probes = standing(job, nominal(data)), empty(job, data), None
    if job.views.epochs:
        models: dict[int, Model] = {}
        for view, model in views_of(job, data.subset(shots), folder):
            models[view] = model
            say(f"view {view}, at {np.rad2deg(_tilts(data)[view]):+.1f}°, reconstructed by itself")
            if why := stop():
                return why
        ordered = [models[view] for view in range(data.n_views)]
        geometry = aligned_geometry(job, ordered, data, folder, say)
        without = dropped(job, folder)
        volume = first_volume(job, ordered, data, geometry, volume, without)
        fitting = [model for view, model in models.items() if view not in without]
        refined = ordered if job.probe.per_view else fitting[-1:]  # each view went on with the probe of the last
        probes = [model.probe.propagate(model.grid, middle_of(model)) for model in refined]
    model = series_of(job, data, geometry, volume, probes)
    write(folder / START, model)
    return stop()


def series_of(job: TomogramJob, data: Dataset, geometry=None, volume=None, probes=None) -> Model:
    """The model of all views, with one of `probes` or one for each; what is not known yet is nominal or empty."""
    if probes is None:
        probes = [alone(job, data.view(view)).probe for view in range(data.n_views if job.probe.per_view else 1)]
    volume = empty(job, data) if volume is None else volume
    geometry = standing(job, nominal(data)) if geometry is None else geometry
    if not job.volume.isolated:
        require_field(data, volume.shape, voxel_of(job, data), nominal(data), lit(job, data))
    model = first_series(
        data,
        volume,
        voxel_of(job, data),
        geometry,
        of_every_view(probes) if job.probe.per_view else probes[0],
        slices=job.volume.slices,
        supersample=job.detector.supersample,
        extend=job.detector.extend,
        descan=job.detector.descan,
        kernel=job.volume.kernel,
        taper=job.volume.taper_angstrom,
        absorptive=jnp.zeros_like(volume) if job.volume.absorptive else None,
    )
    return build.with_camera(job.detector, model, data)


def alone(job: TomogramJob, data: Dataset) -> Model:
    """The first model of one view by itself: thin, at the height of the tilt axis."""
    model = guess_model(data, specimen="phase", **build.of_instrument(job))
    return build.with_camera(job.detector, build.with_probe(job, model, data), data)


def cut(job: TomogramJob, thickness: float, data: Dataset) -> Model:
    """`alone` with the slices that its view gets, `thickness` [Å] in all, and the probe where the first of them acts."""
    thin = alone(job, data)
    whole = replace(thin, specimen=replace(thin.specimen, thickness=jnp.asarray(thickness, float)))
    model = with_slices(whole, job.views.slices)
    return replace(model, probe=model.probe.propagate(model.grid, -middle_of(model)))


def middle_of(model: Model) -> float:
    """How far [Å] behind the first slice of a view by itself the middle of all slices lies."""
    return float(jnp.sum(model.specimen.thicknesses(model.grid)[:-1])) / 2


def voxel_of(job: TomogramJob, data: Dataset) -> tuple[float, float, float]:
    """As wide as the pixels of the model's grid, and as long as the job says or the wider ones are."""
    pixel = model_grid(data.grid, job.detector.supersample, job.detector.extend).pixel
    return (job.volume.voxel_z_angstrom or max(pixel), *pixel)


def lit(job: TomogramJob, data: Dataset) -> float:
    """How far the probe reaches around its position [Å], as the job begins."""
    model = alone(job, data.view(0))
    return radius_of(model.probe, model.grid)


def empty(job: TomogramJob, data: Dataset):
    """A volume of no potential, of the job's size, or that of the field that is scanned and lit."""
    size, voxel = job.volume.size_angstrom, np.array(voxel_of(job, data))
    if size is None:
        y, x = 2 * (reach_of(data) + lit(job, data))
        count = np.ceil(np.array([x, y, x]) / voxel) + 1
    else:
        count = np.maximum(np.round(np.array(size) / voxel), 2)
    require_room(list(count), 2 if job.volume.absorptive else 1, data)
    return jnp.zeros(count.astype(int))


def axis_of(data: Dataset) -> float:
    """Direction of the tilt axis in the patterns [rad], from y towards x, within ±45° (`io.read` does quarter turns)."""
    return float(np.deg2rad(data.about.get("tilt_axis_deg", 0.0)))


def reach_of(data: Dataset) -> np.ndarray:
    """Farthest position of any view from the origin [Å], along the tilt axis and across it."""
    return np.max([np.abs(own @ axis_frame(axis_of(data)).T).max(0) for own in data.positions], axis=0)


def nominal(data: Dataset) -> Geometry:
    """The tilts of the file about its axis, and no shifts."""
    return turned_about_beam(Geometry(_tilts(data)), -axis_of(data))


def _tilts(data: Dataset) -> np.ndarray:
    if data.tilts is None:
        raise ValueError(
            "the file gives no tilts, without which a tilt series has no depth; write tilt_deg [view] beside its counts"
        )
    return np.asarray(data.tilts, float)


def views_of(job: TomogramJob, data: Dataset, folder: Path):
    """Every view with its own model, those that lie in the folder first."""
    section, files = job.views, folder / "views"
    files.mkdir(exist_ok=True)
    known = {int(path.stem.split("_")[1]): load(path) for path in sorted(files.glob("view_*.h5"))}
    rate = section.specimen_rate / section.slices
    optimiser = per_part(specimen=even_adam(rate), probe=optax.adam(section.probe_rate))
    loss = losses.misfit(getattr(losses, section.loss))
    first = partial(cut, job, section.thickness_angstrom or empty(job, data).shape[0] * voxel_of(job, data)[0])
    for view, model in reconstruct_views(
        loss, data, optimiser, section.batch, section.epochs, known=known, first=first, seed=job.run.seed
    ):
        if view not in known:
            write(files / f"view_{view:02d}.h5", model)
        yield view, model


def aligned_geometry(job: TomogramJob, models: list[Model], data: Dataset, folder: Path, say: Say) -> Geometry:
    """The geometry that makes the projections agree; a table of it in the folder."""
    section, voxel = job.alignment, voxel_of(job, data)
    if not section.turns:
        return standing(job, nominal(data))
    field, shape = fields_of(job, data)
    axis = axis_of(data)
    views = projected_views(models, field, axis)
    found = align(
        views.projections,
        Geometry(_tilts(data)),
        voxel,
        shape,
        weights=views.weights > SURE,
        free="constant",
        bins=section.bins,
        turns=section.turns,
        iterations=section.iterations,
        angles=section.angles,
        prior=float(np.deg2rad(section.angle_prior_deg)),
        coarse=section.coarse,
        extended=not job.volume.isolated if section.common_field is None else section.common_field,
    )
    in_patterns = found._replace(geometry=turned_about_beam(found.geometry, -axis))
    write_alignment(folder / ALIGNMENT, in_patterns)
    for name, value in found.words().items():
        say(f"{name}: {value}")
    if job.volume.isolated:
        warn_outside(job, found, data)
    if doubt := found.doubt(np.rad2deg(axis)):
        warnings.warn(doubt, stacklevel=2)
    return standing(job, in_patterns.geometry)


def warn_outside(job: TomogramJob, found: Aligned, data: Dataset) -> None:
    """Warns where the aligned volume, which holds all that was scanned, is not empty outside of the job's."""
    coarser, voxel = job.alignment.bins[-1], np.array(voxel_of(job, data))
    size, reach = voxel * empty(job, data).shape, reach_of(data)
    beyond = at_faces(np.asarray(found.volume), coarser * voxel, size, reach)
    axis, side = np.unravel_index(np.argmax(beyond), beyond.shape)
    if beyond[axis, side] > OUTSIDE:
        place = (2 * int(side) - 1) * size[axis + 1] / 2
        warnings.warn(
            f"the specimen does not fit into the volume of {' × '.join(f'{s:.4g}' for s in size)} Å (z, y, x): beyond its "
            f"face at {'yx'[axis]} = {place:+.4g} Å the views show {beyond[axis, side]:.2f} of the potential within; make "
            "volume.size_angstrom larger, or leave it out, lest what is inside be made to explain what is outside",
            stacklevel=2,
        )


def standing(job: TomogramJob, geometry: Geometry) -> Geometry:
    """The geometry with small angles where the job wants them."""
    if not job.volume.angles or geometry.angles is not None:
        return geometry
    return Geometry(geometry.tilts, np.zeros((len(geometry.tilts), 2)), geometry.shifts)


def fields_of(job: TomogramJob, data: Dataset) -> tuple[tuple[int, int], tuple[int, int, int]]:
    """Pixels (y, x) that all scans reach, and voxels of a volume that fills them at every tilt."""
    voxel, tilts = np.array(voxel_of(job, data)), _tilts(data)
    reach = reach_of(data)
    y, x = (int(n) for n in 2 * np.floor((reach + BEYOND) / voxel[1:]))
    deep = float(np.max(x * voxel[2] * (1 - np.cos(tilts)) / np.maximum(np.abs(np.sin(tilts)), 1e-3)))
    z = max(deep, empty(job, data).shape[0] * voxel[0]) / voxel[0]
    return (y, x), (int(z) + 2, y, x)


def write_alignment(path: Path, found: Aligned) -> None:
    """How every view stands, as a table."""
    geometry = found.geometry
    small = np.zeros((len(geometry.tilts), 2)) if geometry.angles is None else geometry.angles
    angles = np.rad2deg(np.column_stack([geometry.tilts, small]))
    with drafted(path, overwrite=True) as draft, draft.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(
            ["view", "tilt_deg", "about_x_deg", "about_z_deg", "shift_y", "shift_x", "misfit", "fits", "explained"]
        )
        held = np.full(len(angles), np.nan) if found.held_out is None else found.held_out
        for view, (turned, shift, misfit, part) in enumerate(
            zip(angles, geometry.shifts, found.misfits, held, strict=True)
        ):
            numbers = *map(float, turned), *map(float, shift), float(misfit)
            rows.writerow([view, *numbers, view not in found.bad, float(part)])


def dropped(job: TomogramJob, folder: Path) -> set[int]:
    """The views that the alignment found not to fit, where the job leaves them out."""
    if not job.alignment.drop:
        return set()
    return {int(row["view"]) for row in _alignment(folder) if row["fits"] == "False"}


def explained(folder: Path) -> float | None:
    """Fraction of the variance of the views that volumes made without them explain (median of those that fit), as the
    alignment in the folder found it; None without an alignment."""
    parts = [float(row["explained"]) for row in _alignment(folder) if row["fits"] == "True"]
    return float(np.median(parts)) if parts else None


def _alignment(folder: Path) -> list[dict[str, str]]:
    if not (folder / ALIGNMENT).exists():
        return []
    with (folder / ALIGNMENT).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def first_volume(job: TomogramJob, models: list[Model], data: Dataset, geometry: Geometry, start, without=()):
    """The volume of the aligned projections, by the job's method, begun at `start`, `without` some views."""
    section = job.linear
    if not section.iterations:
        return start
    field = (start.shape[1], start.shape[2])
    axis = axis_of(data)
    views = projected_views(models, field, axis)
    operator = Projector(turned_about_beam(geometry, axis), voxel_of(job, data), field)
    more = {"tv": section.total_variation} if section.method == "fista" else {}
    solve = getattr(linear, section.method)
    weights = (views.weights > SURE).astype(np.float32)
    weights[list(without)] = 0
    return solve(
        operator, views.projections, start, section.iterations, weights=weights, free="constant", **more
    ).volume


def between(job: TomogramJob, data: Dataset, shots) -> Callable[[Model, int, int], tuple[Model, bool]]:
    """What happens to the model between the epochs of a job: its views move, its volume begins anew.

    `shots()` are those that the model learns from, by view.
    """
    budget = BUDGET if job.run.budget_gib is None else min(BUDGET, job.run.budget_gib * 2**30)

    def change(model, number, epoch):
        stage = job.stage[number]
        if stage.poses != "nominal":
            moved = posed(model, data, stage.poses, stage.pose_shots, (epoch, job.run.seed), shots(), budget)
            model = owned(without_drift(moved, model))
        return (owned(emptied(model)) if stage.anew else model), stage.anew

    return change


def filled(job: TomogramJob) -> Callable[[int], bool]:
    """Whether there is a volume that holds anything when a stage of a job begins."""

    def of(number):
        if any(stage.elements for stage in job.stage[: number + 1]):
            return False
        if number:
            return not job.stage[number - 1].anew
        return bool(job.views.epochs and job.linear.iterations)

    return of
