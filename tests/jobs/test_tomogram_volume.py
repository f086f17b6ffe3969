"""Variants of the volume of a tilt series' job: voxels longer than wide, and a potential that absorbs."""

import equinox as eqx
import jax.numpy as jnp
import mrcfile
import numpy as np
import pytest
from tilts import ALIGN, LINEAR, SERIES, VIEWS, VOLUME, job_of
from typer.testing import CliRunner

from jaxptycho import Dataset, load, predict, read
from jaxptycho.cli.main import app
from jaxptycho.io.native import write_native
from jaxptycho.jobs.describe import check_job
from jaxptycho.jobs.runner import start
from jaxptycho.jobs.series import series_model

FINE = SERIES | {"name": "fine", "epochs": 1, "rates": {"specimen": 1e-2}}


@pytest.mark.slow
def test_voxels_may_be_longer_than_wide(series, tmp_path):
    """From the views to what other programs are given."""
    steps = [VIEWS, ALIGN, LINEAR, FINE]
    job = job_of(series, specimen=VOLUME | {"voxel_z_angstrom": 1.0}, step=steps)
    assert "8 × 16 × 16 voxels (z, y, x) of 1 × 0.5 × 0.5 Å" in check_job(job)["volume"]
    outcome = start(job, tmp_path / "run")
    volume = load(outcome.folder / "result.h5").specimen
    assert (volume.potential.shape, volume.voxel) == ((8, 16, 16), (1.0, 0.5, 0.5))
    assert float(volume.potential.max()) > 0
    done = CliRunner().invoke(app, ["export", str(tmp_path / "run"), str(tmp_path / "volume.mrc")])
    assert done.exit_code == 0, done.output
    with mrcfile.open(tmp_path / "volume.mrc") as file:
        assert file.voxel_size.tolist() == (0.5, 0.5, 1.0)


@pytest.mark.slow
def test_a_volume_that_absorbs_is_found_beside_its_potential(series, tmp_path):
    """Expected counts of the same model: one blob refracts, another one absorbs."""
    resets = FINE | {"name": "resets", "reset_volume": True, "poses": "nominal"}
    clamp = [{"kind": kind, "each_step": True} for kind in ("amplitude_clamp", "positivity")]
    longer = FINE | {
        "epochs": 12,
        "poses": "nominal",
        "constraint": clamp,
        "rates": {"specimen": 3e-2},
    }
    volume = VOLUME | {"absorptive": True, "angles": False, "taper_angstrom": 1.0}
    changes = {"specimen": volume, "step": [resets, longer]}
    data, model = read(series), series_model(job_of(series, **changes), read(series))
    z, y, x = (0.5 * (np.arange(16) - 8) for _ in range(3))
    r2 = z[:, None, None] ** 2 + y[:, None] ** 2
    true = [jnp.asarray(40 * np.exp(-(r2 + (x - at) ** 2) / 2), jnp.float32) for at in (-1.5, 1.5)]
    known = eqx.tree_at(
        lambda m: (m.specimen.potential, m.specimen.absorptive), model, (true[0], 0.3 * true[1])
    )
    shown = [
        np.fft.fftshift(predict(known, np.arange(16), view=view), axes=(1, 2)) for view in range(3)
    ]
    file = tmp_path / "absorbing.h5"
    write_native(
        file,
        Dataset(
            np.stack(shown), np.stack(data.positions), data.grid, tilts=data.tilts, about=data.about
        ),
    )
    found = start(job_of(file, **changes), tmp_path / "run").model.specimen
    stacks = [np.ravel(stack) for stack in (found.potential, found.absorptive, *true)]
    (refracts, crossed), (crossed_back, absorbs) = np.corrcoef(stacks)[:2, 2:]
    assert min(refracts, absorbs) > 0.65
    assert max(crossed, crossed_back) < 0.05
    assert float(found.absorptive.min()) >= 0
    assert (tmp_path / "run" / "figures" / "sections_absorptive.png").stat().st_size > 5000
