"""From how far the views of a series are aligned: from patterns of atoms, by the steps and defaults of a job."""

import numpy as np
import pytest

from jaxptycho import read
from jaxptycho.analysis.errors import Alignment, alignment_error
from jaxptycho.analysis.volumes import rotation_matrices
from jaxptycho.app.files import template_text
from jaxptycho.app.jobs import make_job, read_job
from jaxptycho.app.simulation import build_experiment, write_experiment
from jaxptycho.app.simulation_schema import SimulationJob
from jaxptycho.app.tomogram import aligned_geometry, views_of
from jaxptycho.app.tomogram_schema import TomogramJob
from jaxptycho.io.native import read_truth

EDGE, STEP = 14.0, 1.8  # Å, of the particle and the scan


def simulated(reach: float, folder):
    """13 views of ±60° with shifts of up to `reach` Å, the scan as wide as the particle and these."""
    (folder / "particle.toml").write_text(template_text("particle"))
    shape = [int((side + 2 * reach) / STEP) + 1 for side in (EDGE, 1.4 * EDGE)]
    settings = [f"scan.shape={shape}", f"tilt_series.shift_angstrom={reach}"]
    job = read_job(folder / "particle.toml", settings, SimulationJob)
    write_experiment(build_experiment(job), folder / "series.h5", job, lambda patterns: None)
    return folder / "series.h5"


@pytest.mark.slow
@pytest.mark.parametrize("reach", [1.0, 10.0])
def test_shifts_of_every_size_are_found(reach, tmp_path):
    """At 1 Å the scan just holds the particle, and a lattice's period is the danger; at 10 Å the distance is."""
    file = simulated(reach, tmp_path)
    volume = {"size_angstrom": [20.0] * 3, "isolated": True}
    job, data = make_job({"data": {"file": str(file)}, "volume": volume}, kind=TomogramJob), read(file)
    models = dict(views_of(job, data, tmp_path))
    geometry = aligned_geometry(job, [models[view] for view in range(13)], data, tmp_path, lambda text: None)
    truth = read_truth(file)
    true = Alignment(rotation_matrices(np.deg2rad(truth["angles_deg"])), np.asarray(truth["shift_angstrom"]))
    rotations = np.asarray(geometry.rotations(), float)
    begin, end = (
        alignment_error(Alignment(rotations, shifts), true, 0.35).distances()
        for shifts in (np.zeros((13, 2)), np.asarray(geometry.shifts, float))
    )
    assert begin.max() > reach
    assert end.mean() < 0.2
    assert end.max() < 0.35  # Å, a voxel
