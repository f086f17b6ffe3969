"""Every key of a simulation job reaches the experiment in the unit of its name: a slip of one fails here."""

import numpy as np
import pytest
import tomlkit
from ase import Atoms
from ase.io import write

from jaxptycho.jobs.reading import read_job
from jaxptycho.jobs.simulation import build_experiment

JOB = {
    "specimen": {"phantom": "twisted_bilayer", "options": {"width": 14.0, "vacancies": 0}},
    "microscope": {"voltage_kv": 300.0, "semiangle_mrad": 20.0},
    "scan": {"shape": [2, 2], "step_angstrom": 1.0, "dose_per_square_angstrom": 500.0},
    "detector": {"pixels": 24, "pixel_angstrom": 0.4},
    "sampling": {"pixel_angstrom": 0.4, "slice_angstrom": 5.0, "configurations": 8},
}
SIDE = 3.61  # Å, of copper's cell


def experiment(folder, **changes):
    """The experiment of the job with whole sections changed."""
    step = {"kind": "simulate"} | {
        name: values | changes.get(name, {}) for name, values in JOB.items()
    }
    step |= {name: values for name, values in changes.items() if name not in JOB}
    step["specimen"] = changes.get("specimen", JOB["specimen"])
    (folder / "job.toml").write_text(tomlkit.dumps({"step": [step]}))
    return build_experiment(read_job(folder / "job.toml").step[0])


def test_the_lens(tmp_path):
    """Cc ΔE/E (1 + E/E₀)/(1 + E/2E₀): 1.2 mm · 0.8 eV/300 keV = 32 Å FWHM, times 1.2269 at 300 kV."""
    lens = {
        "chromatic_mm": 1.2,
        "energy_fwhm_ev": 0.8,
        "source_fwhm_angstrom": 0.6,
        "defocus_angstrom": 20.0,
    }
    own = experiment(tmp_path, microscope=lens).microscope
    np.testing.assert_allclose(own.focal_spread(300.0), 32 * 1.58709 / 1.29354 / 2.35482, rtol=1e-4)
    _, shifts = own.incoherent(64, 200, 300.0, np.random.default_rng(0))
    np.testing.assert_allclose(shifts.std(), 0.6 / 2.35482, rtol=0.03)
    assert (own.semiangle, own.defocus) == (0.02, 20.0)


def test_the_scan(tmp_path):
    moved = {
        "jitter_angstrom": 0.0,
        "drift_angstrom": [0.3, -0.2],
        "descan_mrad": [0.4, -0.8],
        "rotation_deg": 30.0,
    }
    own = experiment(tmp_path, scan=moved)
    np.testing.assert_allclose(own.views[0].positions[-1] - own.scan[-1], [0.3, -0.2], atol=1e-6)
    np.testing.assert_allclose(np.ptp(own.descanned(own.scan), axis=0), [4e-4, 8e-4], rtol=1e-6)
    np.testing.assert_allclose(np.abs(own.scan[1] - own.scan[0]), [0.5, np.sqrt(3) / 2], atol=1e-6)
    assert own.dose == 500.0


def test_a_crystal_from_a_file(tmp_path):
    """Copper along [1 1 0]: layers a/2√2 apart, in a film of the size asked for."""
    corners = [(0, 0, 0), (0, 0.5, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0)]
    write(tmp_path / "cell.cif", Atoms("Cu4", cell=[SIDE] * 3, scaled_positions=corners, pbc=True))
    cut = {
        "file": "cell.cif",
        "width_angstrom": 20.0,
        "thickness_angstrom": 12.0,
        "zone_axis": [1, 1, 0],
    }
    atoms = experiment(tmp_path, specimen=cut).atoms
    z = np.unique(np.round(atoms.positions[:, 2], 3))
    np.testing.assert_allclose(np.diff(z), SIDE / (2 * np.sqrt(2)), atol=2e-3)
    extent = np.ptp(atoms.positions, axis=0)
    assert (extent < [20.1, 20.1, 12.1]).all()
    assert (extent > [20 - SIDE, 20 - SIDE, 12 - SIDE]).all()
    assert len(atoms) == 10 * 6 * 8  # layers of a/2√2, rows of a, atoms of a/√2


def test_a_support(tmp_path):
    """Carbon of the thickness asked for, behind the specimen (at larger z)."""
    own = experiment(tmp_path, specimen=JOB["specimen"] | {"support_angstrom": 12.0}).atoms
    z, carbon = own.positions[:, 2], own.numbers == 6
    assert 12 - 2.5 < np.ptp(z[carbon]) <= 12.0
    assert z[carbon].min() > z[~carbon].max() - 0.1


def test_the_camera(tmp_path):
    """The last column of the text file, from zero to Nyquist; a job names it relative to itself."""
    (tmp_path / "mtf.txt").write_text("0.0 1.0\n0.25 0.7\n0.5 0.4\n")
    screen = {
        "mtf_file": "mtf.txt",
        "flatfield": 0.05,
        "gain": 3.0,
        "readout": 2.0,
        "spread_pixels": 0.7,
    }
    own = experiment(tmp_path, detector=screen)
    np.testing.assert_allclose(own.camera.mtf, [1.0, 0.7, 0.4])
    assert own.gain_map.std() == pytest.approx(0.05, rel=0.15)
    assert (own.camera.gain, own.camera.readout, own.camera.spread) == (3.0, 2.0, 0.7)


def test_the_views(tmp_path):
    """Rms of 60 views: within four standard deviations of 1/√(2n)."""
    errors = {"angle_error_deg": 0.5, "shift_angstrom": 0.8, "defocus_error_angstrom": 7.0}
    tilts = list(np.linspace(-30, 30, 60))
    views = experiment(tmp_path, tilt_series={"tilts_deg": tilts} | errors).views
    turned = np.rad2deg([view.angles for view in views]) - np.stack(
        [tilts, np.zeros(60), np.zeros(60)], 1
    )
    assert np.sqrt(np.mean(turned**2)) == pytest.approx(0.5, rel=4 / np.sqrt(360))
    defocus = np.array([view.defocus for view in views])
    assert defocus.std() == pytest.approx(7.0, rel=4 / np.sqrt(120))
    shifts = np.abs([view.shift for view in views])
    assert 0.7 < shifts.max() <= 0.8
