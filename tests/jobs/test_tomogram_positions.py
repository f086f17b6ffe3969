"""Where the probe truly stood in every shot of a tilt series, from patterns of atoms: the file knows a raster."""

import numpy as np
import pytest
from series_run import atoms_job, reconstructed

from jaxptycho.analysis.errors import position_error
from jaxptycho.jobs.job import Job
from jaxptycho.model import probe_positions

EDGE = 10.0  # Å, of the particle
SIMULATION = [
    f"specimen.options={{edge = {EDGE}, core = 6.0}}",
    "tilt_series.tilts_deg=[-50.0, -25.0, 0.0, 25.0, 50.0]",
    "tilt_series.shift_angstrom=1.0",
    "tilt_series.angle_error_deg=0.0",
    "scan.shape=[8, 11]",
    "scan.jitter_angstrom=0.3",
]


def job_of(file) -> Job:
    """A shot is seen once in an epoch, so its position takes large steps and keeps no momentum."""
    probe = {"rate": 1e-3, "optimiser": "adam"}
    scan = {"rate": 0.15, "optimiser": "adam", "options": {"b1": 0.0}, "schedule": "cosine"}
    fine = {"specimen": {"rate": 3e-2, "schedule": "cosine"}, "probe": probe, "scan": scan}
    return atoms_job(
        file,
        {},
        {"rates": {"specimen": 3e-2, "probe": probe}},
        {"epochs": 10, "rates": fine},
        data={"hold_out": 0.0},
    )


@pytest.mark.slow
def test_positions_of_every_view_are_found(tmp_path):
    """0.3 Å rms along y and x, less a shift of each view; where the particle is, for vacuum shows no position."""
    data, truth, model = reconstructed(tmp_path, SIMULATION, job_of)
    before, after = [], []
    for view in range(data.n_views):
        true = np.asarray(truth["positions"][view])
        over = (np.abs(true - truth["shift_angstrom"][view]) < EDGE / 2).all(1)
        for found, errors in (
            (data.positions[view], before),
            (probe_positions(model, view), after),
        ):
            errors.append(
                np.hypot(
                    *position_error(np.asarray(found, float)[over], true[over], False).residual.T
                )
            )
    before, after = np.concatenate(before), np.concatenate(after)
    assert len(after) > 100
    assert np.median(before) > 0.3  # Å
    assert np.median(after) < 0.15
    assert np.mean(after**2) < 0.4 * np.mean(before**2)
