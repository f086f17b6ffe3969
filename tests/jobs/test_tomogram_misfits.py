"""What does not fit in a tilt series is named: a view of another specimen, a volume that is too small; patterns of atoms."""

import csv
import shutil
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest
from listeners import Said
from series_run import simulation_of
from stepping import aligned, context_of, views_of

from jaxptycho.jobs.job import Job
from jaxptycho.jobs.reading import make_job
from jaxptycho.jobs.runner import Runner
from jaxptycho.jobs.simulation import run_simulation
from jaxptycho.jobs.steps.views import read_views
from jaxptycho.runs.folder import read_state
from jaxptycho.tomography.series import at_faces

TILTS, OTHER = [-50.0, -33.0, -16.0, 4.0, 21.0, 38.0, 55.0], 2
SETTINGS = ["tilt_series.shift_angstrom=1.0", "scan.shape=[9, 12]", "sampling.slice_angstrom=2.0"]
PARTICLE = ["specimen.options={edge = 10.0, core = 6.0}", f"tilt_series.tilts_deg={TILTS}"]
STRANGER = [
    "specimen.phantom=cobalt_oxide_cube",
    "specimen.options={edge = 12.0}",
    f"tilt_series.tilts_deg=[{TILTS[OTHER]}, 0.0]",
]


def simulated(settings, file) -> None:
    run_simulation(simulation_of(file.parent, [*SETTINGS, *settings]), file)


def job_of(file, size: float = 16.0, **align) -> Job:
    volume = {"kind": "volume", "size_angstrom": [size] * 3, "isolated": True}
    steps = [{"kind": "views"}, {"kind": "align"} | align]
    return make_job(
        {"data": {"file": str(file), "hold_out": 0.0}, "specimen": volume, "step": steps}
    )


@pytest.fixture(scope="module")
def particle(tmp_path_factory):
    """A folder with a series, and its separate views."""
    folder = tmp_path_factory.mktemp("particle")
    simulated(PARTICLE, folder / "series.h5")
    views_of(job_of(folder / "series.h5"), folder)
    return folder


@pytest.mark.slow
def test_a_volume_smaller_than_its_particle_is_warned_of(particle, tmp_path):
    models = read_views(context_of(job_of(particle / "series.h5"), particle))
    with pytest.warns(
        UserWarning,
        match=r"the specimen does not fit into the volume of .* specimen\.size_angstrom larger",
    ):
        aligned(job_of(particle / "series.h5", 6.0), models, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for size in (12.0, 16.0):
            aligned(job_of(particle / "series.h5", size), models, tmp_path)


@pytest.mark.slow
def test_a_view_of_another_specimen_is_named_and_dropped(particle, tmp_path):
    """From its patterns, which stand in the place of a view's."""
    simulated(STRANGER, tmp_path / "stranger.h5")
    file, run, views = tmp_path / "mixed.h5", tmp_path / "run", Path("steps", "00-views")
    shutil.copy(particle / "series.h5", file)
    with h5py.File(tmp_path / "stranger.h5") as other, h5py.File(file, "a") as mixed:
        mixed["counts"][OTHER] = other["counts"][0]
    shutil.copytree(particle / views, run / views)
    (run / views / f"view_{OTHER:02d}.h5").unlink()
    job, listener = job_of(file, drop=True), Said()
    with Runner(job, run, listener) as runner:
        assert runner.run().finished
    assert f"views that do not fit: {OTHER}" in listener.lines
    assert read_state(run / "steps" / "01-align", {}).left_out == (OTHER,)
    with (run / "steps" / "01-align" / "alignment.csv").open() as table:
        fits = [row["fits"] for row in csv.DictReader(table)]
    assert fits == ["False" if view == OTHER else "True" for view in range(len(TILTS))]


def test_potential_at_the_faces_of_a_box():
    """A block of 8 × 10 × 12 Å within vacuum: a box of 9 Å cuts off its ends along y and x, low in y where it is moved."""
    volume = np.zeros((12, 24, 24))
    volume[2:10, 6:16, 6:18] = 1.0  # z −4…, y −6…+4, x −6…+6
    beyond = at_faces(volume, 1.0, (9.0, 9.0, 9.0), (12.0, 12.0))
    assert beyond[0, 0] > 0.4
    assert beyond[0, 1] == 0
    assert beyond[1].min() > 0.4
    assert not at_faces(volume, 1.0, (9.0, 13.0, 13.0), (12.0, 12.0)).any()
    assert not at_faces(volume, 1.0, (9.0, 9.0, 9.0), (6.0, 6.0)).any()  # what was not scanned
