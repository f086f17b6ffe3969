"""First model of a tilt series of a job: an empty volume at the nominal geometry."""

import jax.numpy as jnp
import numpy as np

from ..data import Dataset
from ..model import Model
from ..parts.probe import AbstractProbe
from ..start.guess import guess_model, model_grid, require_room
from ..start.probes import of_every_view, radius_of
from ..start.vary import varied
from ..tomography.projections import Geometry, axis_frame, rotate_about_beam
from ..tomography.series import first_series, require_field
from .build import of_instrument, with_camera, with_probe
from .sections import Setup, VolumeSpecimen


def volume_of(job: Setup) -> VolumeSpecimen:
    """The section of the volume; ValueError for a job of another specimen."""
    if not isinstance(job.specimen, VolumeSpecimen):
        raise ValueError(
            f"specimen.kind = {job.specimen.kind!r}, and this step requires the volume of a tilt "
            'series; set specimen.kind = "volume"'
        )
    return job.specimen


def series_model(
    job: Setup,
    data: Dataset,
    geometry: Geometry | None = None,
    probes: list[AbstractProbe] | None = None,
) -> Model:
    """Model of all views with an empty volume; its geometry is nominal unless given.

    `probes` holds one at the height of the tilt axis, or one for each view (`[vary] probe`).
    """
    section = volume_of(job)
    separate = job.vary.get("probe") == "view"
    if probes is None:
        views = range(data.n_views if separate else 1)
        probes = [view_model(job, data.view(view)).probe for view in views]
    volume = empty_volume(job, data)
    voxel = voxel_of(job, data)
    nominal = with_angles(section, nominal_geometry(data))
    if not section.isolated:
        require_field(
            data, volume.shape, voxel, nominal_geometry(data), first_probe_radius(job, data)
        )
    model = first_series(
        data,
        volume,
        voxel,
        nominal if geometry is None else geometry,
        of_every_view(probes) if separate else probes[0],
        slices=section.slices,
        supersample=job.detector.supersample,
        extend=job.detector.extend,
        descan=job.detector.descan,
        kernel=section.kernel,
        taper=section.taper_angstrom,
        absorptive=jnp.zeros_like(volume) if section.absorptive else None,
    )
    over = {path: what for path, what in job.vary.items() if (path, what) != ("probe", "view")}
    return varied(with_camera(job.detector, model), over, data)


def view_model(job: Setup, data: Dataset) -> Model:
    """First model of one separate view: thin, at the height of the tilt axis."""
    model = guess_model(data, specimen="phase", **of_instrument(job, data))
    model = with_camera(job.detector, with_probe(job, model, data))
    camera = {path: what for path, what in job.vary.items() if path.split(".")[0] == "detector"}
    return varied(model, {path: what for path, what in camera.items() if what == "shot"}, data)


def voxel_of(job: Setup, data: Dataset) -> tuple[float, float, float]:
    """Voxel (z, y, x) [Å]: the pixels of the model's grid, as long as the job specifies."""
    pixel = model_grid(data.grid, job.detector.supersample, job.detector.extend).pixel
    return (volume_of(job).voxel_z_angstrom or max(pixel), *pixel)


def first_probe_radius(job: Setup, data: Dataset) -> float:
    """Radius [Å] of the first guess of the probe around its position."""
    model = view_model(job, data.view(0))
    return radius_of(model.probe, model.grid)


def empty_volume(job: Setup, data: Dataset):
    """Volume [z, y, x] of zero potential: of the job's size, or of the illuminated field."""
    section = volume_of(job)
    voxel = np.array(voxel_of(job, data))
    if section.size_angstrom is None:
        y, x = 2 * (reach_of(data) + first_probe_radius(job, data))
        count = np.ceil(np.array([x, y, x]) / voxel) + 1
    else:
        count = np.maximum(np.round(np.array(section.size_angstrom) / voxel), 2)
    require_room(list(count), 2 if section.absorptive else 1, data)
    return jnp.zeros(count.astype(int))


def tilt_axis(data: Dataset) -> float:
    """Direction of the tilt axis in the patterns [rad], from y towards x, within ±45°."""
    return float(np.deg2rad(data.about.get("tilt_axis_deg", 0.0)))


def reach_of(data: Dataset) -> np.ndarray:
    """Farthest position of any view from the origin [Å], along the tilt axis and across it."""
    frame = axis_frame(tilt_axis(data))
    return np.max([np.abs(places @ frame.T).max(0) for places in data.positions], axis=0)


def tilts_of(data: Dataset) -> np.ndarray:
    """Nominal tilt of every view [rad]; ValueError if the file gives none."""
    if data.tilts is None:
        raise ValueError(
            "the file gives no tilts, without which a tilt series has no depth; write tilt_deg "
            "[view] beside its counts"
        )
    return np.asarray(data.tilts, float)


def nominal_geometry(data: Dataset) -> Geometry:
    """The tilts of the file about its axis, without shifts."""
    return rotate_about_beam(Geometry(tilts_of(data)), -tilt_axis(data))


def with_angles(section: VolumeSpecimen, geometry: Geometry) -> Geometry:
    """The geometry with small angles where the job asks for them."""
    if not section.angles or geometry.angles is not None:
        return geometry
    return Geometry(geometry.tilts, np.zeros((len(geometry.tilts), 2)), geometry.shifts)
