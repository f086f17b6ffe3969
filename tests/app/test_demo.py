"""The demo tells its two layers apart."""

import h5py
import pytest

from jaxptycho.app import demo


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "demo"
    return out, demo.run_demo(out, positions=12, epochs=30)


def test_each_layer_is_its_own(run):
    _, figures = run
    for n in (1, 2):
        assert figures[f"correlation_{n}"] > 0.88
        assert figures[f"crosstalk_{n}"] < figures[f"correlation_{n}"] - 0.3


def test_resolves_atoms(run):
    assert run[1]["resolution_angstrom"] < 0.9


def test_leaves_a_run_and_the_truth(run):
    out, _ = run
    assert {"result.h5", "run.toml", "history.csv"} <= {path.name for path in (out / "run").iterdir()}
    assert (out / "layers.png").stat().st_size > 10_000
    with h5py.File(out / "bilayer.h5") as file:
        assert len(file["truth/potential"]) == 2


def test_overwrites_nothing(run):
    with pytest.raises(ValueError, match="exists and is not overwritten"):
        demo.run_demo(run[0])
