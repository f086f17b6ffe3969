"""`jaxptycho tomogram`: a small tilt series from its file to a volume, interrupted and gone on with."""

import csv
from pathlib import Path

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from jaxptycho import Volume, load
from jaxptycho.app.cli import app
from jaxptycho.app.jobs import kind_of, make_job, read_job
from jaxptycho.app.run import loop_of, resume, start
from jaxptycho.app.simulation import run_simulation
from jaxptycho.app.simulation_schema import SimulationJob
from jaxptycho.app.tomogram_schema import TomogramJob
from jaxptycho.app.watch import Watch

SIMULATION = {
    "specimen": {"phantom": "platinum_in_alumina", "options": {"edge": 6.0, "core": 3.0}},
    "microscope": {"voltage_kv": 200.0, "semiangle_mrad": 25.0, "defocus_angstrom": 30.0},
    "scan": {"shape": [4, 4], "step_angstrom": 1.5, "dose_per_square_angstrom": 1e5},
    "detector": {"pixels": 24, "pixel_angstrom": 0.5},
    "tilt_series": {"tilts_deg": [-30.0, 0.0, 40.0], "shift_angstrom": 0.3},
    "sampling": {"slice_angstrom": 3.0, "pixel_angstrom": 0.25},
}
JOB = {
    "volume": {"size_angstrom": [8.0, 8.0, 8.0], "slices": 2, "kernel": "linear", "isolated": True},
    "views": {"epochs": 2, "batch": 8},
    "alignment": {"turns": 1, "iterations": 2, "bins": [2]},
    "linear": {"iterations": 2},
    "stage": [
        {"name": "coarse", "epochs": 1, "batch": 16, "poses": "shifts", "anew": True},
        {"name": "fine", "epochs": 2, "batch": 16, "rates": {"specimen": 1e-2}},
    ],
    "run": {"devices": 1},
}


@pytest.fixture(scope="module")
def series(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("series") / "tilts.h5"
    run_simulation(make_job(SIMULATION, kind=SimulationJob), file)
    return file


def job_of(series: Path, **changes) -> TomogramJob:
    return make_job(JOB | {"data": {"file": str(series), "hold_out": 0.1}} | changes, kind=TomogramJob)


class AfterViews(Watch):
    """Asks to stop once so many views are done."""

    def __init__(self, views):
        self.left = views

    def say(self, text):
        self.left -= text.startswith("view ")

    def stop(self):
        return "enough" if self.left <= 0 else None


@pytest.mark.slow
def test_a_series_becomes_a_volume_however_often_it_is_interrupted(series, tmp_path):
    folder, watch = tmp_path / "run", AfterViews(2)
    first = start(job_of(series), folder, watch, watch.stop)
    assert (first.why, len(list((folder / "views").iterdir()))) == ("enough", 2)
    made = {path: path.stat().st_mtime_ns for path in (folder / "views").iterdir()}
    outcome = resume(folder)
    assert outcome.finished
    assert [row.stage for row in outcome.history] == ["coarse", "fine", "fine"]
    assert all(path.stat().st_mtime_ns == time for path, time in made.items())  # none is made again
    assert {"start.h5", "alignment.csv", "result.h5", "run.toml"} <= {path.name for path in folder.iterdir()}
    assert (folder / "figures" / "sections.png").stat().st_size > 5000
    with (folder / "alignment.csv").open() as file:
        tilts = [float(row["tilt_deg"]) for row in csv.DictReader(file)]
    np.testing.assert_allclose(tilts, SIMULATION["tilt_series"]["tilts_deg"], atol=1e-3)
    begun, ended = (load(folder / name).specimen for name in ("start.h5", "result.h5"))
    assert isinstance(ended, Volume)
    assert ended.potential.shape == (16, 16, 16)
    assert not np.array_equal(begun.shift.values, ended.shift.values)  # views have moved
    assert float(begun.potential.max()) > 0  # from the projections
    places = load(folder / "result.h5").scan.positions.values.values
    with h5py.File(series) as file:
        np.testing.assert_allclose(places, file["positions"][()], atol=1e-4)  # the held-out shots are still counted


def test_the_job_of_a_series_is_written_checked_and_inspected(series, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = CliRunner().invoke
    written = run(app, ["new", str(series), "--out", "job.toml"])
    assert "jaxptycho tomogram job.toml" in written.output
    assert kind_of(Path("job.toml")) is TomogramJob
    assert read_job(Path("job.toml"), kind=TomogramJob).probe.semiangle_mrad == 25.0
    checked = run(app, ["validate", "job.toml"])
    assert checked.exit_code == 0, checked.output
    assert "voxels" in checked.output
    assert "+40" in run(app, ["inspect", str(series)]).output


def test_a_volume_within_the_scan_is_refused_unless_it_is_isolated(series):
    small = JOB["volume"] | {"size_angstrom": [3.0, 4.0, 4.0], "isolated": False}
    with pytest.raises(ValueError, match=r"view 0, at -30°, is scanned to .* where the volume ends at .* isolated"):
        loop_of(job_of(series, volume=small)).check()


@pytest.mark.parametrize(
    ("views", "tilts", "sentence"),
    [(3, [10.0, 10.0, 10.0], "all tilts"), (3, None, "tilt_deg"), (3, [0.0, 10.0], "tilts")],
)
def test_a_series_without_depth_is_refused(series, tmp_path, views, tilts, sentence):
    bad = tmp_path / "bad.h5"
    bad.write_bytes(series.read_bytes())
    with h5py.File(bad, "a") as file:
        del file["tilt_deg"]
        if tilts is not None:
            file["tilt_deg"] = tilts
    with pytest.raises(ValueError, match=sentence):
        loop_of(job_of(bad)).check()


@pytest.mark.slow
def test_a_series_in_slabs_learns_as_on_one_device(series, tmp_path):
    tilted = JOB["volume"] | {"angles": False}  # so few patterns find angles beyond those that halos are made for
    whole = start(job_of(series, volume=tilted), tmp_path / "whole")
    split = start(job_of(series, volume=tilted, run={"devices": 4, "slabs": 2}), tmp_path / "split")
    assert split.finished
    np.testing.assert_allclose(split.history[-1].loss, whole.history[-1].loss, rtol=0.05)  # other batches
    assert load(split.folder / "result.h5").specimen.potential.shape == split.model.specimen.potential.shape
