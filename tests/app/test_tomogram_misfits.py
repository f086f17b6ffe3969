"""What does not fit in a tilt series is named: a view of another specimen, a volume that is too small; patterns of atoms."""

import csv
import shutil
import warnings

import h5py
import numpy as np
import pytest

from jaxptycho import read
from jaxptycho.cli.files import template_text
from jaxptycho.io.results import load
from jaxptycho.jobs.reading import make_job, read_job
from jaxptycho.jobs.simulation import build_experiment, write_experiment
from jaxptycho.jobs.simulation_schema import SimulationJob
from jaxptycho.jobs.tomogram import aligned_geometry, dropped, prepare, views_of
from jaxptycho.jobs.tomogram_schema import TomogramJob
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
    toml = file.with_suffix(".toml")
    toml.write_text(template_text("particle"))
    job = read_job(toml, [*SETTINGS, *settings], SimulationJob)
    write_experiment(build_experiment(job), file, job, lambda patterns: None)


def job_of(file, size: float = 16.0, **alignment) -> TomogramJob:
    volume = {"size_angstrom": [size] * 3, "isolated": True}
    return make_job({"data": {"file": str(file)}, "volume": volume, "alignment": alignment}, kind=TomogramJob)


@pytest.fixture(scope="module")
def particle(tmp_path_factory):
    """A folder with a series, and its views by themselves."""
    folder = tmp_path_factory.mktemp("particle")
    simulated(PARTICLE, folder / "series.h5")
    list(views_of(job_of(folder / "series.h5"), read(folder / "series.h5"), folder))
    return folder


@pytest.mark.slow
def test_a_volume_smaller_than_its_particle_is_warned_of(particle, tmp_path):
    data = read(particle / "series.h5")
    models = [load(particle / "views" / f"view_{view:02d}.h5") for view in range(len(TILTS))]
    with pytest.warns(
        UserWarning, match=r"the specimen does not fit into the volume of .* volume\.size_angstrom larger"
    ):
        aligned_geometry(job_of(particle / "series.h5", 6.0), models, data, tmp_path, print)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for size in (12.0, 16.0):
            aligned_geometry(job_of(particle / "series.h5", size), models, data, tmp_path, print)


@pytest.mark.slow
def test_a_view_of_another_specimen_is_named_and_dropped(particle, tmp_path):
    """From its patterns, which stand in the place of a view's."""
    simulated(STRANGER, tmp_path / "stranger.h5")
    file, run = tmp_path / "mixed.h5", tmp_path / "run"
    shutil.copy(particle / "series.h5", file)
    with h5py.File(tmp_path / "stranger.h5") as other, h5py.File(file, "a") as mixed:
        mixed["counts"][OTHER] = other["counts"][0]
    run.mkdir()
    shutil.copytree(particle / "views", run / "views")
    (run / "views" / f"view_{OTHER:02d}.h5").unlink()
    job, data, said = job_of(file, drop=True), read(file), []
    shots = [np.arange(n) for n in data.n_shots]
    assert prepare(job, data, shots, run, said.append, lambda: None) is None
    assert f"views that do not fit: {OTHER}" in said
    assert dropped(job, run) == {OTHER}
    with (run / "alignment.csv").open() as table:
        fits = [row["fits"] for row in csv.DictReader(table)]
    assert fits == ["False" if view == OTHER else "True" for view in range(len(TILTS))]


def test_what_stands_at_the_faces_of_a_box():
    """A block of 8 × 10 × 12 Å within vacuum: a box of 9 Å cuts off its ends along y and x, low in y where it is moved."""
    volume = np.zeros((12, 24, 24))
    volume[2:10, 6:16, 6:18] = 1.0  # z −4…, y −6…+4, x −6…+6
    beyond = at_faces(volume, 1.0, (9.0, 9.0, 9.0), (12.0, 12.0))
    assert beyond[0, 0] > 0.4
    assert beyond[0, 1] == 0
    assert beyond[1].min() > 0.4
    assert not at_faces(volume, 1.0, (9.0, 13.0, 13.0), (12.0, 12.0)).any()
    assert not at_faces(volume, 1.0, (9.0, 9.0, 9.0), (6.0, 6.0)).any()  # what was not scanned
