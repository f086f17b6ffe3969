"""What the views of a series show by themselves, and from how far they are aligned: patterns of atoms, defaults of a job."""

import numpy as np
import pytest
from series_run import simulation_of
from stepping import aligned, views_of

from jaxptycho import Grid, read
from jaxptycho.analysis.errors import Alignment, alignment_error
from jaxptycho.analysis.gauge import register
from jaxptycho.analysis.volumes import rotation_matrices
from jaxptycho.io.native import read_truth
from jaxptycho.jobs.reading import make_job
from jaxptycho.jobs.simulation import build_experiment, run_simulation
from jaxptycho.jobs.steps.align import fields_of
from jaxptycho.jobs.steps.linear import geometry_of
from jaxptycho.simulate.stacks import Box, content, projected
from jaxptycho.tomography.views import projected_views

EDGE, STEP = 14.0, 1.8  # Å, of the particle and the scan


def simulated(reach: float, folder, tilts=None):
    """A job of 13 views of ±60° with shifts of up to `reach` Å, the scan as wide as the particle and these, and what it
    gives."""
    shape = [int((side + 2 * reach) / STEP) + 1 for side in (EDGE, 1.4 * EDGE)]
    settings = [f"scan.shape={shape}", f"tilt_series.shift_angstrom={reach}"]
    settings += [] if tilts is None else [f"tilt_series.tilts_deg={tilts}"]
    step = simulation_of(folder, settings)
    run_simulation(step, folder / "series.h5")
    return build_experiment(step), folder / "series.h5"


def of_views(file, folder):
    """The job of a series, its data, and the model of each separate view."""
    volume = {"kind": "volume", "size_angstrom": [20.0] * 3, "isolated": True}
    job = make_job({"data": {"file": str(file), "hold_out": 0.0}, "specimen": volume})
    return job, read(file), views_of(job, folder)


def true_projection(experiment, view: int, shape, pixel: float):
    """∫V dz [V·Å] of the atoms as a view sees them, the tilt axis in the middle of the pixel [n//2, n//2]."""
    atoms, fine = (
        experiment.turned(experiment.views[view]),
        Grid((2 * shape[0], 2 * shape[1]), pixel / 2, 200.0),
    )
    corner = [-(n // 2) * pixel - pixel / 4 for n in shape]
    box = Box(np.array([-40.0, *corner]), np.array([[0, 80.0]]), fine)
    places = atoms.positions[:, ::-1]
    image = projected(
        content(atoms.numbers, places, experiment.debye_waller, box, projection="infinite"), fine
    )
    return np.asarray(image).reshape(shape[0], 2, shape[1], 2).mean((1, 3))


@pytest.mark.slow
def test_views_by_themselves_show_the_projected_potential(tmp_path):
    """Volts and places right but for a plane, at tilts where the particle is 14 to 19 Å thick, thin as the model is."""
    experiment, file = simulated(3.4, tmp_path, [-60.0, 0.0, 40.0])
    job, data, models = of_views(file, tmp_path)
    shape, _ = fields_of(job, data)
    shown = projected_views([models[view] for view in range(3)], shape)
    for view in range(3):
        found, true = shown.projections[view], true_projection(experiment, view, shape, 0.35)
        seen = shown.weights[view] > 0.99
        y, x = np.indices(shape)
        plane = np.stack([np.ones(shape), y, x], -1)[seen]
        (slope, *rest), *_ = np.linalg.lstsq(
            np.column_stack([true[seen], plane]), found[seen], rcond=None
        )
        level = found[seen] - plane @ rest
        assert slope == pytest.approx(1, abs=0.12)
        assert np.corrcoef(level, true[seen])[0, 1] > 0.93
        shift = register(true * seen, (found - np.median(found[seen])) * seen).shift
        assert np.abs(0.35 * shift).max() < 0.05  # Å


@pytest.mark.slow
@pytest.mark.parametrize("reach", [1.0, 10.0])
def test_shifts_of_every_size_are_found(reach, tmp_path):
    """At 1 Å the scan just holds the particle, and a lattice's period is the danger; at 10 Å the distance is."""
    _, file = simulated(reach, tmp_path)
    job, _, models = of_views(file, tmp_path)
    geometry = geometry_of(aligned(job, models, tmp_path).model)
    truth = read_truth(file)
    true = Alignment(
        rotation_matrices(np.deg2rad(truth["angles_deg"])), np.asarray(truth["shift_angstrom"])
    )
    rotations = np.asarray(geometry.rotations(), float)
    begin, end = (
        alignment_error(Alignment(rotations, shifts), true, 0.35).distances()
        for shifts in (np.zeros((13, 2)), np.asarray(geometry.shifts, float))
    )
    assert begin.max() > reach
    assert end.mean() < 0.2
    assert end.max() < 0.35  # Å, a voxel
