"""The jobs of `jaxptycho new --template` on measured data, judged by what the field would ask of them.

Slow: minutes each on two cores. Figures to beat stand in the README of the data.
"""

import shutil
import subprocess
import sys
from importlib.resources import files

import h5py
import numpy as np
import pytest

from jaxptycho import load
from jaxptycho.analysis.truth import compare_phase, phases

pytestmark = pytest.mark.slow


def reconstruct(template, data, folder, *settings):
    """The run folder of a template's job, as the command line makes it (in single precision)."""
    job = folder / "job.toml"
    shutil.copy(str(files("jaxptycho.jobs") / "templates" / f"{template}.toml"), job)
    command = [sys.executable, "-m", "jaxptycho", "run", str(job), "--out", str(folder / "run")]
    for setting in (f"data.file={data}", *settings):
        command += ["--set", setting]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "run"


def fit(run):
    with h5py.File(run / "result.h5") as file:
        return float(file.attrs["E"]), float(file.attrs["R"])


def test_siemens_star(data_dir, tmp_path):
    e, r = fit(reconstruct("siemens_star", data_dir("siemens_star_xray.h5"), tmp_path))
    assert e <= 0.225
    assert r <= 0.130


def test_near_field(data_dir, tmp_path):
    _, r = fit(reconstruct("near_field", data_dir("petra3_near_field_xray.cxi"), tmp_path))
    assert r <= 0.045


def test_rotavirus(data_dir, tmp_path):
    e, _ = fit(reconstruct("rotavirus", data_dir("rotavirus_300kV_64x64.h5"), tmp_path))
    assert e <= 0.418  # lower only by over-fitting


def test_bilayer_from_semiangle_and_defocus_alone(data_dir, tmp_path):
    file = data_dir("wse2_mos2_bilayer_80kV_1e5.h5")
    model = load(reconstruct("bilayer", file, tmp_path) / "result.h5")
    with h5py.File(file) as data:
        pixel = float(data.attrs["truth_pixel_angstrom"])
        truth = {
            name: model.grid.sigma * data[f"truth/projected_{name}"][()]
            for name in ("potential", "top", "bottom")
        }
    phase = phases(model)
    upper, lower = np.split(phase, 2)
    whole = compare_phase(phase.sum(0), model, truth["potential"], pixel)
    assert whole.correlation >= 0.965
    assert whole.slope >= 0.75

    def agree(half, layer):
        return compare_phase(half.sum(0), model, truth[layer], pixel).correlation

    assert agree(upper, "top") - agree(upper, "bottom") >= 0.2
    assert agree(lower, "bottom") - agree(lower, "top") >= 0.2
