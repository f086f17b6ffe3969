"""The command line says whether a model explains the patterns, and exits accordingly."""

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from jaxptycho.cli import main as cli
from jaxptycho.io.results import load_attributes
from jaxptycho.jobs.reading import make_job
from jaxptycho.jobs.runner import start

pytestmark = pytest.mark.usefixtures("undrawn", "quick_to_compile")


def written(path, semiangle):
    """Poisson counts of vacuum: a disc of 20 mrad."""
    rng, k = np.random.default_rng(0), np.fft.fftshift(np.fft.fftfreq(32, 0.4))
    disc = np.hypot(k[:, None], k) * 0.041757 < 0.02
    with h5py.File(path, "w") as file:
        file["counts"] = rng.poisson(np.tile(disc * 50.0 + 0.2, (64, 1, 1))).astype(np.uint16)
        file["positions"] = np.stack(np.meshgrid(range(8), range(8)), -1).reshape(-1, 2) * 1.0
        file.attrs.update(
            voltage_kv=80.0, pixel_angstrom=0.4, semiangle_mrad=semiangle, defocus_angstrom=60.0
        )
    return path


@pytest.mark.parametrize(
    ("semiangle", "rate", "code", "said"),
    [
        (20.0, 5e-3, 0, "differ by no more than noise"),
        (20.0, 5.0, 3, "rates too large"),
        (2.0, 5e-3, 3, "units of semiangle"),
    ],
    ids=["sound", "rate", "another unit"],
)
@pytest.mark.filterwarnings("ignore:the bright-field disc measures", "ignore:the probe is")
def test_exit_code_and_words(tmp_path, semiangle, rate, code, said):
    written(tmp_path / "scan.h5", semiangle)
    job = tmp_path / "scan.toml"
    job.write_text('[data]\nfile = "scan.h5"\n\n[[step]]\nkind = "refine"\n')
    sets = ["step.0.epochs=5", "step.0.batch=64", f"step.0.rates.specimen={rate}", "run.devices=1"]
    more = [word for one in sets for word in ("--set", one)]
    done = CliRunner().invoke(cli.app, ["run", str(job), "--out", str(tmp_path / "run"), *more])
    assert done.exit_code == code, done.output
    assert said in done.output
    rows = [line.split("│")[1].strip() for line in done.output.splitlines() if line.startswith("│")]
    assert rows[-1] == "R"
    about = load_attributes(tmp_path / "run" / "result.h5")
    assert about["explains"] == (code == 0)
    assert said in about["verdict"]


def test_devices_agree_on_the_verdict(values, tmp_path):
    """Also: one epoch of a sound run begins to explain."""
    step = values["step"][0] | {"epochs": 1}

    def verdict(devices):
        run = {"devices": devices}
        return start(
            make_job(values | {"step": [step], "run": run}), tmp_path / str(devices)
        ).verdict

    one, two = verdict(1), verdict(2)
    assert one.explains
    assert two.explains
    assert one.evidence.share == pytest.approx(two.evidence.share, rel=0.1)
