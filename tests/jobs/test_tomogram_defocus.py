"""The defocus of every view, and its probe, from patterns of atoms: the file knows one for all."""

import jax.numpy as jnp
import numpy as np
import pytest
from series_run import atoms_job, reconstructed

from jaxptycho import PerView, PixelProbe, select
from jaxptycho.analysis.errors import probe_fidelity
from jaxptycho.analysis.pictures import probe_modes
from jaxptycho.jobs.job import Job

VIEWS = 5
SIMULATION = [
    "specimen.options={edge = 10.0, core = 6.0}",
    "tilt_series.tilts_deg=[-50.0, -25.0, 0.0, 25.0, 50.0]",
    "tilt_series.defocus_error_angstrom=15.0",
    "tilt_series.shift_angstrom=1.0",
    "tilt_series.angle_error_deg=0.0",
    "scan.shape=[8, 11]",
    "sampling.slice_angstrom=1.0",
]


def job_of(file) -> Job:
    probe = {"rate": 2e-2, "optimiser": "adam"}
    return atoms_job(
        file,
        {"probe_rate": 5e-2},
        {"rates": {"specimen": 3e-2, "probe": probe}},
        {
            "epochs": 12,
            "rates": {"specimen": {"rate": 3e-2, "schedule": "cosine"}, "probe": probe},
        },
        probe={"kind": "aberrated"},
        vary={"probe": "view"},
    )


@pytest.mark.slow
def test_every_view_finds_its_defocus(tmp_path):
    """15 Å rms apart, found within 3 Å of a depth of focus λ/α² of 47 Å; half a slice of the simulator, 0.5 Å, is in it."""
    data, truth, model = reconstructed(tmp_path, SIMULATION, job_of)
    entrance = float(truth["origin_angstrom"][0])
    true = np.asarray(truth["defocus_angstrom"]) + entrance  # at the height of the axis
    found = -(np.asarray(model.probe.aberrations["C10"].values) + model.specimen.above)
    assert np.abs(data.about["defocus_angstrom"] - true).max() > 20
    np.testing.assert_allclose(found, true, atol=3.0)
    np.testing.assert_allclose(
        model.probe.dose.values, [data.dose(view).mean() for view in range(VIEWS)], rtol=0.01
    )
    for view in range(VIEWS):
        lit = PixelProbe(jnp.asarray(truth["probe"][view])).propagate(
            data.grid, -model.specimen.above - entrance
        )
        own = probe_modes(select(model, PerView, view)).waves
        assert probe_fidelity(own, np.asarray(lit.waves), np.array(data.grid.pixel)).fidelity > 0.99
