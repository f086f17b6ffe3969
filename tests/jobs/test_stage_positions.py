"""Positions in the frame of a stage, through files and jobs: the picture is that of positions from zero."""

import shutil

import h5py
import numpy as np
import pytest

from jaxptycho import load
from jaxptycho.jobs.measurement import read_data
from jaxptycho.jobs.reading import make_job
from jaxptycho.jobs.runner import start
from jaxptycho.model import probe_positions

pytestmark = pytest.mark.usefixtures("undrawn", "quick_to_compile")

# offset [Å], Å in the unit of the file, keys of the job
AWAY = {
    "Å": ((1e8, -3e8), 1.0, {}),
    "m": ((1.3e8, -2e8), 1e-10, {"position_unit": "m"}),
    "one axis": ((2e9, 0.0), 1.0, {}),
    "a region": ((1e8, 1e8), 1.0, {"region_angstrom": [[1e8 - 9, 1e8 - 9], [1e8 + 9, 1e8 + 9]]}),
}


def moved(measurement, folder, offset, unit):
    """A copy of the measurement at another place of the stage."""
    path = folder / f"at_{offset[0]:.0e}.h5"
    shutil.copy(measurement, path)
    with h5py.File(path, "r+") as file:
        places = file["positions"][:].astype(float)
        del file["positions"]
        file["positions"] = (places + offset) * unit
    return path


def job_of(path, **data):
    step = {"kind": "refine", "epochs": 2, "batch": 16, "rates": {"specimen": 5e-2}}
    return make_job({"data": {"file": str(path)} | data, "step": [step], "run": {"devices": 1}})


@pytest.mark.parametrize("name", AWAY)
def test_positions_of_a_stage_are_read_without_rounding(name, measurement, tmp_path):
    offset, unit, keys = AWAY[name]
    near = read_data(job_of(measurement))
    far = read_data(job_of(moved(measurement, tmp_path, offset, unit), **keys))
    np.testing.assert_allclose(
        far.positions[0] + far.frame - offset, near.positions[0] + near.frame, atol=1e-5
    )
    assert np.abs(far.positions[0]).max() < 100


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Å", "m"])
def test_a_picture_is_the_same_anywhere_on_the_stage(name, measurement, tmp_path):
    offset, unit, keys = AWAY[name]
    start(job_of(measurement), tmp_path / "near")
    start(job_of(moved(measurement, tmp_path, offset, unit), **keys), tmp_path / "far")
    near, far = (load(tmp_path / where / "result.h5") for where in ("near", "far"))
    seen = probe_positions(near)
    np.testing.assert_allclose(probe_positions(far) + far.frame - offset, seen, atol=1e-4)
    pictures = [model.specimen.phase_per_slice(model.grid) for model in (near, far)]
    np.testing.assert_allclose(*pictures, atol=2e-3)
