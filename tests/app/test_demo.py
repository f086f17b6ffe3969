"""The demo tells its two layers apart, and its atoms are those of another table."""

import h5py
import numpy as np
import pytest
from abtem.parametrizations import KirklandParametrization

from jaxptycho.app import demo


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "demo"
    return out, demo.run_demo(out, positions=12, epochs=20)


def test_each_layer_is_its_own(run):
    _, figures = run
    for n in (1, 2):
        assert figures[f"correlation_{n}"] > 0.9
        assert figures[f"crosstalk_{n}"] < figures[f"correlation_{n}"] - 0.3


def test_resolves_atoms(run):
    assert run[1]["resolution_angstrom"] < 0.8


def test_leaves_a_run_and_the_truth(run):
    out, _ = run
    assert {"result.h5", "run.toml", "history.csv"} <= {path.name for path in (out / "run").iterdir()}
    assert (out / "layers.png").stat().st_size > 10_000
    with h5py.File(out / "bilayer.h5") as file:
        assert file["truth/projected_top"].shape == file["truth/projected_bottom"].shape == demo.FINE.shape


def test_overwrites_nothing(run):
    with pytest.raises(ValueError, match="exists and is not overwritten"):
        demo.run_demo(run[0])


@pytest.mark.parametrize("element", demo.SCATTERING)
def test_atoms_scatter_as_kirkland_says(element):
    """Up to 2/Å; beyond, the parametrisations of Peng and of Kirkland part by more than 3 %."""
    atom = demo.potential(element, np.array([[0.0, 0.0]]))
    k = np.arange(1, 51) * demo.FINE.dk[1]
    spectrum = np.fft.fft2(atom).real[0, 1:51] * np.prod(demo.FINE.pixel) * np.exp(demo.DEBYE_WALLER * k**2 / 4)
    other = KirklandParametrization().projected_scattering_factor(element)(k**2)
    np.testing.assert_allclose(spectrum, other, rtol=0.03)


def test_planes_lie_apart_as_the_layers_say():
    first, second = (demo.atom_planes(layer, height) for layer, height in zip(demo.LAYERS, (0.0, 15.0), strict=True))
    metal, chalcogen = first[1][2], first[0][2]
    distance = np.linalg.norm(metal[:, None] - chalcogen[None], axis=-1).min(1)
    inner = (np.abs(metal - demo.BOX / 2) < demo.BOX / 2 - 4).all(1)
    np.testing.assert_allclose(distance[inner], 3.16 / np.sqrt(3), rtol=1e-6)
    assert len(metal) == pytest.approx(demo.BOX**2 / (3.16**2 * np.sqrt(3) / 2), rel=0.05)
    assert [z for z, _, _ in second] == [15.0, 15 + 1.67, 15 + 2 * 1.67]
