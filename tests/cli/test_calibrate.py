"""`jaxptycho calibrate FILE`, `new FILE` and `run FILE` without a job."""

import json

import h5py
import numpy as np
import pytest
from scans import blobs
from typer.testing import CliRunner

import jaxptycho as jp
from jaxptycho.analysis.truth import compare_phase, phases
from jaxptycho.cli.main import app
from jaxptycho.io.native import read_truth
from jaxptycho.jobs.reading import is_job, make_job
from jaxptycho.jobs.writing import write_job

COUNTS, PLACES = blobs(side=6)
LINE = np.c_[np.zeros(36), 2.0 * np.arange(36)]
NOT_FINITE = np.where(np.arange(36)[:, None, None] % 4 == 3, np.nan, COUNTS)
BAD = {
    "zero": (np.zeros_like(COUNTS), PLACES, "the patterns hold no counts"),
    "three": (COUNTS[:3], PLACES[:3], "3 patterns do not determine"),
    "line": (COUNTS, LINE, "36 positions of the scan are on a line"),
    "nan": (NOT_FINITE, PLACES, "counts of shot 3 are not finite"),
    "twice": (np.tile(COUNTS, (2, 1, 1)), np.tile(PLACES, (2, 1)), "are there 2 scans in one file"),
}


def written(path, counts, positions):
    """A native file of 80 kV with the pixel and semiangle of the blobs."""
    about = {"format": "jaxptycho-dataset", "version": 1, "voltage_kv": 80.0}
    with h5py.File(path, "w") as file:
        file["counts"] = counts
        file["positions"] = positions
        file.attrs.update(about | {"pixel_angstrom": 0.3, "semiangle_mrad": 25.0})
    return path


@pytest.mark.parametrize("verb", ["calibrate", "run"])
@pytest.mark.parametrize("name", BAD)
def test_bad_scans_end_with_a_sentence_that_names_the_file(name, verb, tmp_path):
    counts, positions, words = BAD[name]
    file = written(tmp_path / f"{name}.h5", counts, positions)
    out = tmp_path / "out"
    done = CliRunner().invoke(app, [verb, str(file), "--out", str(out)])
    assert done.exit_code == 2
    assert words in done.stderr
    assert file.name in done.stderr
    assert not out.exists()


@pytest.mark.usefixtures("undrawn")
def test_a_file_with_a_probe_is_run_with_it_where_nothing_else_is_measured(tmp_path):
    """Speckles without a bright-field disc, that do not move with the scan."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(20 * rng.exponential(size=(36, 24, 24)))
    file = written(tmp_path / "speckles.h5", counts, PLACES)
    verbs = ["--set", "step.0.epochs=1", "--set", "data.hold_out=0.0"]
    with h5py.File(file, "a") as stored:
        del stored.attrs["semiangle_mrad"]
    done = CliRunner().invoke(app, ["run", str(file), "--out", str(tmp_path / "none")])
    assert done.exit_code == 2
    assert "no bright-field disc" in done.stderr
    with h5py.File(file, "a") as stored:
        stored["probe_guess"] = np.fft.fftshift(np.fft.ifft2(np.hypot(*np.mgrid[:24, :24]) < 6))
    done = CliRunner().invoke(app, ["run", str(file), "--out", str(tmp_path / "run"), *verbs])
    assert done.exit_code == 3, done.output  # speckles of chance are explained by no model
    assert "neither optics nor orientation are measured" in done.output
    assert (tmp_path / "run" / "result.h5").exists()


def test_a_semiangle_that_the_disc_contradicts_is_refused(tmp_path):
    file = written(tmp_path / "scan.h5", COUNTS, PLACES)
    out = tmp_path / "out"
    verbs = ["calibrate", str(file), "--out", str(out), "--set", "probe.semiangle_mrad=12"]
    done = CliRunner().invoke(app, verbs)
    assert done.exit_code == 2
    assert "probe.semiangle_mrad = 12 came, and the disc has 2" in done.stderr
    assert not out.exists()


def test_a_measurement_is_told_from_a_job(tmp_path):
    file = written(tmp_path / "scan.h5", COUNTS, PLACES)
    job = tmp_path / "job.txt"
    job.write_text('[data]\nfile = "scan.h5"\n')
    assert not is_job(file)
    assert is_job(job)
    assert is_job(tmp_path / "missing.toml")


def test_a_job_carries_the_sources_of_its_keys():
    job = make_job({"data": {"file": "scan.h5"}, "probe": {"defocus_angstrom": 120.0}})
    text = write_job(job, sources={"probe.defocus_angstrom": "120 ± 2 Å ← fit"}, head=["found"])
    assert text.startswith("# found")
    (line,) = (line for line in text.splitlines() if line.startswith("defocus_angstrom"))
    assert line.endswith("# 120 ± 2 Å ← fit")


@pytest.mark.slow
def test_a_bilayer_without_a_key(data_dir, tmp_path):
    file = data_dir("wse2_mos2_bilayer_80kV_1e5.h5")
    out = tmp_path / "run"
    done = CliRunner().invoke(
        app, ["run", str(file), "--out", str(out), "--set", "step.0.epochs=25"]
    )
    assert done.exit_code == 0, done.output
    model = jp.load(out / "result.h5")
    truth = read_truth(file)
    projected = model.grid.sigma * truth["projected_potential"]
    found = compare_phase(phases(model).sum(0), model, projected, truth["pixel_angstrom"])
    assert found.correlation >= 0.99
    values = json.loads((out / "calibration" / "calibration.json").read_text())
    defocus = values["quantities"]["defocus_angstrom"]
    assert abs(defocus["value"] - 142) < 8
    assert abs(values["quantities"]["rotation_deg"]["value"]) < 0.5


@pytest.mark.slow
def test_rotavirus_from_counts_voltage_semiangle_and_step(data_dir):
    """The rotation of the scan, −120.6°, and the defocus, from nothing.

    What decided the sign of the latter was the amplitude at low frequencies, which is that of
    underfocus whatever the truth.
    """
    stored = jp.read(data_dir("rotavirus_300kV_64x64.h5"))
    rows = np.stack(np.meshgrid(np.arange(64), np.arange(64), indexing="ij"), -1)
    counts = stored.counts[0]
    data = jp.Dataset(counts, 31.25 * rows.reshape(-1, 2).astype(float), stored.grid)
    look = jp.calibrate(data)
    assert look.optics is not None
    matrix = look.optics.matrix
    assert np.linalg.det(matrix) > 0
    angle = np.rad2deg(np.arctan2(matrix[1, 0], matrix[0, 0]))
    assert abs(angle + 120.6) < 1
    quantities = look.rows()
    assert abs(quantities["defocus_angstrom"].value / 136e3 - 1) < 0.02
    assert abs(quantities["astigmatism_angstrom"].value - 3e3) < 1.5e3
    assert look.optics.ambiguous
