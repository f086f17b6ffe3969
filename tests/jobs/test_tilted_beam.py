"""`propagator.tilted_beam`: a flat specimen at a few small tilts, from a job."""

import numpy as np
import pytest
from tilts import simulate_file
from typer.testing import CliRunner

from jaxptycho import Dataset, Grid, PotentialSlices, load
from jaxptycho.analysis.depth import depth_profiles, fit_depth_peaks
from jaxptycho.cli.main import app
from jaxptycho.jobs.build import build_model
from jaxptycho.jobs.reading import make_job
from jaxptycho.jobs.simulation import build_experiment
from jaxptycho.model import require_inside
from jaxptycho.start.guess import guess_model
from jaxptycho.start.tilt_coupled import tilt_coupled

GRID, TILTS = Grid((16, 16), 0.5, voltage_kv=80.0), np.deg2rad([-4.0, 0.0, 4.0])
FLAT = {"kind": "potential", "slices": 4, "thickness_angstrom": 40.0}


def measured(tilts=TILTS) -> Dataset:
    places = np.stack(np.meshgrid([-8.0, 0.0, 8.0], [-8.0, 0.0, 8.0], indexing="ij"), -1).reshape(
        -1, 2
    )
    about = {"semiangle_mrad": 25.0, "defocus_angstrom": 30.0}
    return Dataset(
        np.ones((3, 9, *GRID.shape)), np.stack([places] * 3), GRID, tilts=tilts, about=about
    )


def job(**sections):
    return make_job(
        {"data": {"file": "tilts.h5"}, "specimen": FLAT, "propagator": {"tilted_beam": True}}
        | sections
    )


def test_a_job_leans_the_beam_of_every_view(quick_to_compile):
    """As by hand, lit at the entrance face: the file's defocus is that at the axis, here 12 Å below the face."""
    data = measured()
    leans = {"tilted_beam": True, "axis_angstrom": 12.0}
    model = build_model(job(probe={"kind": "aberrated"}, propagator=leans), data)
    by_hand = tilt_coupled(
        guess_model(data, slices=4, thickness=40.0, specimen="potential"), TILTS, axis=12.0
    )
    np.testing.assert_allclose(
        model.scan.positions.values.values, by_hand.scan.positions.values.values
    )
    np.testing.assert_allclose(model.propagator.angles.values, by_hand.propagator.angles.values)
    np.testing.assert_allclose(model.probe.aberrations["C10"], -42.0, rtol=1e-6)
    assert isinstance(model.specimen, PotentialSlices)
    for view in range(3):
        require_inside(model, view)


def test_refusals():
    with pytest.raises(ValueError, match="which the file does not give; write tilt_deg"):
        build_model(job(), measured(None))
    with pytest.raises(
        ValueError, match=r"specimen.slices is 1; give the thickness and several slices"
    ):
        build_model(job(specimen={"kind": "potential"}), measured())
    with pytest.raises(ValueError, match="a relaxed probe cannot be combined with"):
        build_model(job(probe={"kind": "relaxed"}), measured())
    with pytest.raises(ValueError, match=r"a tilted beam is valid up to 10°"):
        build_model(job(), measured(np.deg2rad([-30.0, 0.0, 30.0])))


@pytest.mark.slow
def test_the_template_tells_two_layers_apart(tmp_path):
    """WSe₂ 20 Å above MoS₂ at −4°, 0° and 4°, from semiangle and defocus alone; the simulator turns atoms."""
    sections = {
        "specimen": {"phantom": "twisted_bilayer", "options": {"width": 24.0, "spacing": 20.0}},
        "microscope": {"voltage_kv": 80.0, "semiangle_mrad": 25.0, "defocus_angstrom": 20.0},
        "scan": {"shape": [11, 11], "step_angstrom": 0.8, "dose_per_square_angstrom": 3.3e5},
        "detector": {"pixels": 32, "pixel_angstrom": 0.3},
        "tilt_series": {"tilts_deg": [-4.0, 0.0, 4.0]},
        "sampling": {"pixel_angstrom": 0.15, "slice_angstrom": 1.0},
    }
    file = tmp_path / "few_tilts.h5"
    simulate_file(sections, file)
    experiment = build_experiment(make_job({"step": [{"kind": "simulate"} | sections]}).step[0])

    def run(*words):
        done = CliRunner().invoke(app, [str(word) for word in words])
        assert done.exit_code == 0, done.output

    run("new", file, "--template", "flat_tilts", "--out", tmp_path / "flat.toml")
    run("run", tmp_path / "flat.toml", "--out", tmp_path / "run", "--set", "run.devices=1")
    specimen, atoms, height = load(tmp_path / "run" / "result.h5").specimen, experiment.atoms, []
    for number in (74, 42):
        columns = atoms.positions[atoms.numbers == number][:, 1::-1]
        inside = columns[np.abs(columns).max(1) < 3.5]
        values, origin = np.asarray(specimen.potential, float), np.asarray(specimen.origin)
        profile = depth_profiles(values, inside, (0.3, 0.3), 0.6, origin).mean(0)
        peak = fit_depth_peaks(profile[None], float(specimen.thickness))
        height.append(float(peak.position[0]))
        assert peak.fwhm[0] < 10  # Å; 18 Å without tilts
    assert height[1] - height[0] == pytest.approx(20.0, abs=1.0)
