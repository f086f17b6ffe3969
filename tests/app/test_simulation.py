"""`jaxptycho simulate`: a small job from beginning to end, and one sentence for every bad one."""

import h5py
import numpy as np
import pytest
import tomlkit
from ase import Atoms
from ase.io import write
from typer.testing import CliRunner

from jaxptycho import read
from jaxptycho.app.cli import app

RUNNER = CliRunner()
JOB = {
    "specimen": {"phantom": "twisted_bilayer", "options": {"width": 14.0, "vacancies": 1}},
    "microscope": {"voltage_kv": 80.0, "semiangle_mrad": 25.0, "defocus_angstrom": 20.0},
    "scan": {"shape": [3, 4], "step_angstrom": 1.0, "dose_per_square_angstrom": 500.0, "jitter_angstrom": 0.1},
    "detector": {"pixels": 24, "pixel_angstrom": 0.4},
    "sampling": {"pixel_angstrom": 0.25, "slice_angstrom": 2.5},
    "output": {"slab_angstrom": 5.0},
}


def run(folder, changes=(), *arguments):
    """The command on the job with some of its keys changed; `None` takes one out."""
    job = {section: dict(values) for section, values in JOB.items()}
    for path, value in dict(changes).items():
        section, key = path.split(".")
        job.setdefault(section, {})[key] = value
        if value is None:
            del job[section][key]
    file = folder / "job.toml"
    file.write_text(tomlkit.dumps(job))
    return RUNNER.invoke(app, ["simulate", str(file), "--out", str(folder / "scan.h5"), *arguments])


@pytest.mark.filterwarnings("ignore")
def test_a_simulation_is_reconstructed(tmp_path):
    result = run(tmp_path)
    assert result.exit_code == 0, result.output
    assert "12 of 24² pixels" in result.output
    data = read(tmp_path / "scan.h5")
    assert data.grid.shape == (24, 24)
    np.testing.assert_allclose(data.patterns(0, np.arange(12)).sum((1, 2)), 500, rtol=0.2)
    assert data.about["semiangle_mrad"] == 25.0
    with h5py.File(tmp_path / "scan.h5") as file:
        truth = {name: stored[()] for name, stored in file["truth"].items()}
        nominal = file["positions"][()]
    slabs, ny, nx = truth["potential"].shape
    assert slabs == 3
    np.testing.assert_allclose(truth["projected_potential"], truth["potential"].sum(0))
    assert truth["probe"].shape[-2:] == (24, 24)
    np.testing.assert_allclose((np.abs(truth["probe"]) ** 2).sum(), 500, rtol=1e-4)
    assert 0 < np.abs(truth["positions"] - nominal).max() < 0.5
    assert len(truth["atomic_numbers"]) == len(truth["atom_positions_angstrom"]) == len(truth["vibration_angstrom"])
    y, x = (truth["atom_positions_angstrom"][:, 1:] - truth["origin_angstrom"][1:]).T / truth["pixel_angstrom"][:, None]
    heavy = (truth["atomic_numbers"] == 74) & (y > 1) & (y < ny - 2) & (x > 1) & (x < nx - 2)
    there = truth["projected_potential"][y[heavy].round().astype(int), x[heavy].round().astype(int)]
    assert (there > np.median(truth["projected_potential"]) * 3).all()  # atoms where the potential is
    job = {"data": {"file": "scan.h5"}, "stage": [{"epochs": 1, "batch": 6}], "run": {"devices": 1}}
    (tmp_path / "first.toml").write_text(tomlkit.dumps(job))
    done = RUNNER.invoke(app, ["reconstruct", str(tmp_path / "first.toml"), "--out", str(tmp_path / "run")])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "run" / "result.h5").exists()
    again = run(tmp_path)
    assert again.exit_code == 2
    assert "exists and is not overwritten" in again.output


def test_a_tilt_series_is_written_view_by_view(tmp_path):
    series = {"tilts_deg": [-20.0, 0.0, 20.0], "angle_error_deg": 0.3, "shift_angstrom": 0.5}
    changes = {f"tilt_series.{key}": value for key, value in series.items()}
    result = run(tmp_path, changes | {"scan.shape": [2, 2], "specimen.options": {"width": 10.0, "vacancies": 0}})
    assert result.exit_code == 0, result.output
    with h5py.File(tmp_path / "scan.h5") as file:
        assert file["counts"].shape == (3, 4, 24, 24)
        assert file["positions"].shape == (3, 4, 2)
        np.testing.assert_allclose(file["tilt_deg"][()], [-20, 0, 20])
        assert file["truth/angles_deg"].shape == (3, 3)
        np.testing.assert_allclose(file["truth/angles_deg"][:, 0], [-20, 0, 20], atol=1.5)
        assert 0 < np.abs(file["truth/shift_angstrom"][()]).max() < 0.5
        assert file["truth/probe"].shape == (3, 1, 24, 24)
        entrance = file["truth/origin_angstrom"][0]
        assert entrance < -1
        np.testing.assert_allclose(file["truth/defocus_angstrom"], 20.0)
        np.testing.assert_allclose(file.attrs["defocus_angstrom"], 20.0 + entrance)  # at the axis, less underfocus
        assert not np.array_equal(file["counts"][0], file["counts"][1])


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Structures that cannot be simulated, and one that is not a cell."""
    folder = tmp_path_factory.mktemp("structures")
    write(folder / "placeholder.xyz", Atoms("XC", positions=[[0, 0, 0], [2, 0, 0]]))
    write(folder / "overlap.xyz", Atoms("C2", positions=[[0, 0, 0], [0.1, 0, 0]]))
    write(folder / "finite.xyz", Atoms("C2", positions=[[0, 0, 0], [1.4, 0, 0]]))
    return folder


BAD = [
    ({"specimen.phantom": "strontium_titanat"}, "strontium_titanate"),
    ({"specimen.options": {"widht": 3.0}}, "width"),
    ({"specimen.options": {"width": -3.0}}, "above zero"),
    ({"specimen.file": "finite.xyz"}, "either a phantom or a file"),
    ({"specimen.phantom": None, "specimen.options": {}}, "either a phantom or a file"),
    ({"specimen.phantom": None, "specimen.file": "missing.xyz"}, "missing.xyz"),
    ({"specimen.phantom": None, "specimen.file": "placeholder.xyz"}, "placeholder|atomic number 0|element"),
    ({"specimen.phantom": None, "specimen.file": "overlap.xyz"}, "Å apart"),
    ({"specimen.phantom": None, "specimen.file": "finite.xyz", "specimen.width_angstrom": 9.0}, "give both"),
    ({"specimen.vibration_angstrom": {"Mo": 0.1}}, "S, Se, W"),
    ({"microscope.defocus_angstrom": 900.0}, "its window only 9.6 Å"),
    ({"microscope.aberrations_angstrom": {"C99": 1.0}}, "C99"),
    ({"sampling.slice_angstrom": 0.0}, "slice_angstrom"),
    ({"sampling.slice_angstrom": -1.0}, "slice_angstrom"),
    ({"scan.shape": [0, 4]}, "0 × 4"),
    ({"scan.step": 1.0}, "step_angstrom"),
    ({"detector.noise": True, "scan.dose_per_square_angstrom": 1e9}, "that a file holds"),
]


@pytest.mark.parametrize(("changes", "words"), BAD, ids=lambda value: value if isinstance(value, str) else None)
def test_bad_jobs_get_one_sentence(tmp_path, files, changes, words):
    for file in files.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    result = run(tmp_path, changes)
    assert result.exit_code == 2, result.output
    sentence = " ".join(line for line in result.output.splitlines() if line.startswith("error: "))
    assert any(word in sentence for word in words.split("|")), result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "scan.h5").exists()


def test_a_phantom_has_a_job_to_begin_with(tmp_path):
    result = RUNNER.invoke(app, ["new", "copper_phthalocyanine", "--out", str(tmp_path / "new.toml")])
    assert result.exit_code == 0, result.output
    assert tomlkit.parse((tmp_path / "new.toml").read_text())["specimen"]["phantom"] == "copper_phthalocyanine"
