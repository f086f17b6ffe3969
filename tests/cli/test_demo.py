"""The demo tells its two layers apart, and its result is judged by the truth.

Every change is checked by the command itself, in .ci/run; what it prints is judged here, at night.
"""

import shutil

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from jaxptycho.cli import demo
from jaxptycho.cli.main import app
from jaxptycho.reports.evaluate import evaluate_results

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "demo"
    return out, demo.run_demo(out, positions=12, epochs=30)


def test_each_layer_is_its_own(run):
    _, figures = run
    for n in (1, 2):
        assert figures[f"correlation_{n}"] > 0.9
        assert figures[f"crosstalk_{n}"] < figures[f"correlation_{n}"] - 0.3


def test_resolves_atoms(run):
    assert run[1]["resolution_angstrom"] < 0.8


def test_leaves_a_run_and_the_truth(run):
    out, _ = run
    assert {"result.h5", "run.toml", "history.csv"} <= {
        path.name for path in (out / "run").iterdir()
    }
    assert (out / "layers.png").stat().st_size > 10_000
    with h5py.File(out / "bilayer.h5") as file:
        assert len(file["truth/potential"]) == 2


def test_overwrites_nothing(run):
    with pytest.raises(ValueError, match="exists and is not overwritten"):
        demo.run_demo(run[0])


def compared(*words):
    return CliRunner().invoke(app, ["compare", *map(str, words)])


def test_a_result_is_compared_with_the_truth_of_its_file(run, tmp_path):
    out, figures = run
    result = compared(
        out / "run",
        out / "run" / "result.h5",
        "--truth",
        out / "bilayer.h5",
        "--out",
        tmp_path / "told",
    )
    assert result.exit_code == 0, result.output
    rows = evaluate_results([out / "run"], out / "bilayer.h5")
    assert (
        float(rows["correlation of the phase"][0])
        > max(figures["correlation_1"], figures["correlation_2"]) - 0.05
    )
    assert float(rows["fidelity of the probe"][0]) > 0.98
    assert len(rows["correlation of the slices"][0].split(", ")) == 4
    assert (
        "0 Å rms" in rows["position error"][0] or "e-" in rows["position error"][0]
    )  # they were not refined
    drawn = {path.name for path in (tmp_path / "told" / "1-run").iterdir()}
    spectra = {"spectrum_result.png", "spectrum_truth.png"}
    assert (
        drawn
        == {"phase.png", "frc_truth.png", "depth.png", "positions_error.png", "probes.png"}
        | spectra
    )
    assert (
        compared(out / "run", "--truth", out / "bilayer.h5", "--out", tmp_path / "told").exit_code
        == 2
    )


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (
            lambda file: file["truth/origin_angstrom"].write_direct(np.full(3, 1e3)),
            "does not overlap",
        ),
        (lambda file: file.pop("truth"), "holds no /truth"),
        (
            lambda file: (
                file.pop("truth/angles_deg"),
                file.create_dataset("truth/angles_deg", data=np.zeros((3, 3))),
            ),
            "tilt series of 3",
        ),
        (lambda file: file["truth"].pop("projected_potential"), "no /truth/projected_potential"),
    ],
)
def test_a_truth_that_is_none_is_refused(run, tmp_path, spoil, said):
    shutil.copy(run[0] / "bilayer.h5", tmp_path / "spoilt.h5")
    with h5py.File(tmp_path / "spoilt.h5", "r+") as file:
        spoil(file)
    result = compared(run[0] / "run", "--truth", tmp_path / "spoilt.h5")
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_result_is_not_compared_with_nothing(run):
    result = compared(run[0] / "run")
    assert result.exit_code == 2
    assert "compared with nothing" in result.stderr
