"""The step `simulate`: a small job from beginning to end, and one sentence for every bad one."""

import copy

import h5py
import numpy as np
import pytest
import tomlkit
from ase import Atoms
from ase.io import write
from typer.testing import CliRunner

from jaxptycho import read
from jaxptycho.cli.main import app
from jaxptycho.jobs.reading import make_job
from jaxptycho.jobs.runner import resume, start
from jaxptycho.runs.progress import ProgressListener

pytestmark = pytest.mark.usefixtures("quick_to_compile")
FCC = [(0, 0, 0), (0, 0.5, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0)]
CELL = Atoms("Cu4", cell=[3.61] * 3, scaled_positions=FCC, pbc=True)
RUNNER = CliRunner()
JOB = {
    "specimen": {"phantom": "twisted_bilayer", "options": {"width": 14.0, "vacancies": 1}},
    "microscope": {"voltage_kv": 80.0, "semiangle_mrad": 25.0, "defocus_angstrom": 20.0},
    "scan": {
        "shape": [3, 4],
        "step_angstrom": 1.0,
        "dose_per_square_angstrom": 500.0,
        "jitter_angstrom": 0.1,
    },
    "detector": {"pixels": 24, "pixel_angstrom": 0.4},
    "sampling": {"pixel_angstrom": 0.25, "slice_angstrom": 2.5},
    "file": "scan.h5",
    "slab_angstrom": 5.0,
}


class AfterFirst(ProgressListener):
    """Asks to stop once the simulation has said what it wrote."""

    said = False

    def say(self, text):
        self.said = True

    def stop(self):
        return "enough" if self.said else None


def run(folder, changes=(), *arguments):
    """The command on the job with some of its keys changed; `None` takes one out."""
    step = {"kind": "simulate"} | copy.deepcopy(JOB)
    for path, value in dict(changes).items():
        section, key = path.split(".")
        step.setdefault(section, {})[key] = value
        if value is None:
            del step[section][key]
    file = folder / "job.toml"
    file.write_text(tomlkit.dumps({"step": [step]}))
    return RUNNER.invoke(app, ["run", str(file), "--out", str(folder / "simulated"), *arguments])


@pytest.mark.filterwarnings("ignore")
def test_a_simulation_is_written_with_its_truth(tmp_path):
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
    assert (
        len(truth["atomic_numbers"])
        == len(truth["atom_positions_angstrom"])
        == len(truth["vibration_angstrom"])
    )
    y, x = (truth["atom_positions_angstrom"][:, 1:] - truth["origin_angstrom"][1:]).T / truth[
        "pixel_angstrom"
    ][:, None]
    heavy = (truth["atomic_numbers"] == 74) & (y > 1) & (y < ny - 2) & (x > 1) & (x < nx - 2)
    there = truth["projected_potential"][y[heavy].round().astype(int), x[heavy].round().astype(int)]
    assert (
        there > np.median(truth["projected_potential"]) * 3
    ).all()  # atoms where the potential is


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_file_of_a_simulation_is_reconstructed(tmp_path):
    assert run(tmp_path).exit_code == 0
    refine = {"kind": "refine", "epochs": 1, "batch": 6}
    job = {"data": {"file": "scan.h5"}, "step": [refine], "run": {"devices": 1}}
    (tmp_path / "first.toml").write_text(tomlkit.dumps(job))
    done = RUNNER.invoke(app, ["run", str(tmp_path / "first.toml"), "--out", str(tmp_path / "run")])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "run" / "result.h5").exists()
    again = RUNNER.invoke(
        app, ["run", str(tmp_path / "job.toml"), "--out", str(tmp_path / "again")]
    )
    assert again.exit_code == 2
    assert not (tmp_path / "again").exists()
    assert "exists and is not overwritten" in again.output


def written(folder, changes):
    """Expected counts and the truth of a job."""
    folder.mkdir()
    result = run(folder, {"detector.noise": False} | changes)
    assert result.exit_code == 0, result.output
    with h5py.File(folder / "scan.h5") as file:
        return file["counts"][()], {name: stored[()] for name, stored in file["truth"].items()}


def test_what_a_source_a_descan_and_a_camera_did_is_under_truth(tmp_path):
    """The mixed modes of the probe, by how far each pattern moved, and the gain of every pixel."""
    near = {"scan.shape": [1, 3], "scan.jitter_angstrom": 0.0, "sampling.configurations": 2}
    plain, first = written(tmp_path / "plain", near | {"microscope.source_fwhm_angstrom": 0.5})
    step = 1e3 * 0.0417572 / (24 * 0.4)  # of the detector [mrad]
    changes = near | {"microscope.source_fwhm_angstrom": 0.5, "detector.flatfield": 0.1}
    moved, second = written(tmp_path / "moved", changes | {"scan.descan_mrad": [0.0, 4 * step]})
    modes = first["probe"]
    assert len(modes) > 2
    np.testing.assert_allclose((np.abs(modes) ** 2).sum(), 500, rtol=2e-3)
    assert "gain_map" not in first
    np.testing.assert_allclose(first["descan_mrad"], 0)
    np.testing.assert_allclose(
        second["descan_mrad"], step * np.array([[0, -2], [0, 0], [0, 2]]), rtol=1e-4, atol=1e-9
    )
    assert 0.05 < second["gain_map"].std() < 0.15
    np.testing.assert_allclose(moved[1], plain[1] * second["gain_map"], rtol=1e-4)
    flat = moved / second["gain_map"]
    for shot, pixels in ((0, 2), (2, -2)):
        back = np.roll(flat[shot], pixels, 1)[:, 4:-4]
        assert np.linalg.norm(back - plain[shot][:, 4:-4]) < 0.02 * np.linalg.norm(plain[shot])


def test_a_tilt_series_is_written_view_by_view(tmp_path):
    series = {"tilts_deg": [-20.0, 0.0, 20.0], "angle_error_deg": 0.3, "shift_angstrom": 0.5}
    changes = {f"tilt_series.{key}": value for key, value in series.items()}
    result = run(
        tmp_path,
        changes | {"scan.shape": [2, 2], "specimen.options": {"width": 10.0, "vacancies": 0}},
    )
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
        np.testing.assert_allclose(
            file.attrs["defocus_angstrom"], 20.0 + entrance
        )  # at the axis, less underfocus
        assert not np.array_equal(file["counts"][0], file["counts"][1])


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Structures that cannot be simulated, and one that is not a cell."""
    folder = tmp_path_factory.mktemp("structures")
    write(folder / "placeholder.xyz", Atoms("XC", positions=[[0, 0, 0], [2, 0, 0]]))
    write(folder / "overlap.xyz", Atoms("C2", positions=[[0, 0, 0], [0.1, 0, 0]]))
    write(folder / "cell.cif", CELL)
    write(
        folder / "film.vasp",
        Atoms("C2", positions=[[0, 0, 9], [1.4, 0, 9]], cell=[2.8, 2.4, 20], pbc=True),
    )
    write(folder / "finite.xyz", Atoms("C2", positions=[[0, 0, 0], [1.4, 0, 0]]))
    return folder


FILE = {"specimen.phantom": None, "specimen.options": {}, "specimen.file": "cell.cif"}
CUT = FILE | {"specimen.width_angstrom": 5.4, "specimen.thickness_angstrom": 8.0}
BAD = [
    (FILE, "without vacuum around it"),
    (FILE | {"specimen.file": "film.vasp"}, "without vacuum around it"),
    (CUT, "specimen.width_angstrom is 5.4 Å, the scan with its probe reaches"),
    ({"tilt_series.angle_error_deg": 1.0}, "came without tilts"),
    ({"microscope.source_fwhm_angstrom": 0.8}, "a source of 0.8 Å"),
    ({"specimen.phantom": "strontium_titanat"}, "strontium_titanate"),
    ({"specimen.options": {"widht": 3.0}}, "width"),
    ({"specimen.options": {"width": -3.0}}, "above zero"),
    ({"specimen.file": "finite.xyz"}, "either a phantom or a file"),
    ({"specimen.phantom": None, "specimen.options": {}}, "either a phantom or a file"),
    ({"specimen.phantom": None, "specimen.file": "missing.xyz"}, "missing.xyz"),
    (
        {"specimen.phantom": None, "specimen.file": "placeholder.xyz"},
        "placeholder|atomic number 0|element",
    ),
    ({"specimen.phantom": None, "specimen.file": "overlap.xyz"}, "Å apart"),
    (
        {"specimen.phantom": None, "specimen.file": "finite.xyz", "specimen.width_angstrom": 9.0},
        "give both",
    ),
    ({"specimen.vibration_angstrom": {"Mo": 0.1}}, "S, Se, W"),
    ({"microscope.defocus_angstrom": 900.0}, "its window only 9.6 Å"),
    ({"microscope.aberrations_angstrom": {"C99": 1.0}}, "C99"),
    ({"sampling.slice_angstrom": 0.0}, "slice_angstrom"),
    ({"sampling.slice_angstrom": -1.0}, "slice_angstrom"),
    ({"scan.shape": [0, 4]}, "0 × 4"),
    ({"scan.step": 1.0}, "step_angstrom"),
    ({"detector.noise": True, "scan.dose_per_square_angstrom": 1e9}, "that a file holds"),
]


@pytest.mark.parametrize(
    ("changes", "words"), BAD, ids=lambda value: value if isinstance(value, str) else None
)
def test_bad_jobs_get_one_sentence(tmp_path, files, changes, words):
    for file in files.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    result = run(tmp_path, changes)
    assert result.exit_code == 2, result.output
    sentence = " ".join(line for line in result.output.splitlines() if line.startswith("error: "))
    assert any(word in sentence for word in words.split("|")), result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "scan.h5").exists()
    while_computing = words == "that a file holds"  # only then are counts known
    assert (tmp_path / "simulated").exists() == while_computing


@pytest.mark.parametrize(
    "changes", [{"specimen.vibration_angstrom": 0.1}, {"specimen.vibration_angstrom": 0.0}]
)
def test_a_snapshot_of_vibrations_says_so(tmp_path, changes):
    words = run(tmp_path, changes | {"scan.shape": [1, 1]}).output
    assert ("one snapshot" in words) == bool(changes["specimen.vibration_angstrom"])


def test_a_molecule_in_a_periodic_box_is_no_crystal(tmp_path):
    """A gap of 6 Å between the atoms of neighbouring cells along every axis."""
    write(
        tmp_path / "POSCAR",
        Atoms("CO", positions=[[1, 4, 4], [2.1, 4, 4]], cell=[8, 8, 8], pbc=True),
    )
    result = run(tmp_path, FILE | {"specimen.file": "POSCAR", "scan.shape": [1, 1]})
    assert result.exit_code == 0, result.output


def test_a_valid_series_says_what_it_covers(tmp_path):
    """One view of a thin specimen measures a slab; its wedge is all but a plane."""
    run(tmp_path, {"tilt_series.tilts_deg": [-30.0, 0.0, 30.0], "scan.shape": [0, 1]})
    done = RUNNER.invoke(
        app, ["validate", str(tmp_path / "job.toml"), "--set", "step.0.scan.shape=[2,2]"]
    )
    assert done.exit_code == 0, done.output
    assert "coverage" in done.output
    assert "missing wedge" in done.output


def test_a_phantom_has_a_job_to_begin_with(tmp_path):
    result = RUNNER.invoke(
        app, ["new", "copper_phthalocyanine", "--out", str(tmp_path / "new.toml")]
    )
    assert result.exit_code == 0, result.output
    (step,) = tomlkit.parse((tmp_path / "new.toml").read_text())["step"]
    assert step["specimen"]["phantom"] == "copper_phthalocyanine"


def test_a_measurement_is_simulated_and_reconstructed_in_one_job(tmp_path, undrawn):
    """Interrupted after the first step; the measurement lies in the folder of the step."""
    step = {"kind": "simulate"} | {name: value for name, value in JOB.items() if name != "file"}
    step["scan"] = JOB["scan"] | {"shape": [8, 8]}
    refine = {"kind": "refine", "epochs": 1, "batch": 6}
    evaluate = {"kind": "evaluate"}
    job = make_job({"step": [step, refine, evaluate], "run": {"devices": 1}})
    listener = AfterFirst()
    assert start(job, tmp_path / "run", listener, listener.stop).why == "enough"
    file = tmp_path / "run" / "steps" / "00-simulate" / "data.h5"
    written = file.stat().st_mtime_ns
    outcome = resume(tmp_path / "run")
    assert outcome.finished
    assert file.stat().st_mtime_ns == written  # not simulated again
    assert len(outcome.history) == 1
    assert (tmp_path / "run" / "result.h5").exists()
    table = (tmp_path / "run" / "steps" / "02-evaluate" / "evaluation.csv").read_text()
    assert "correlation of the phase" in table
