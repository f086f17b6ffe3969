"""Results explain themselves: units, axes, origin, and a picture that viewers of HDF5 find."""

import hashlib

import h5py
import jax.numpy as jnp
import numpy as np
import pytest
from models import GRID, MODELS, ORIGIN, stack, thin

from jaxptycho import Dataset, PerView, Volume, write
from jaxptycho.analysis.pictures import picture
from jaxptycho.analysis.scanned import scanned
from jaxptycho.io.native import write_native
from jaxptycho.io.provenance import data_hash
from jaxptycho.reports.describe_result import describe_result


@pytest.mark.parametrize("name", ["relaxed_probe", "aberrated_probe", "affine_scan", "two_views"])
def test_every_array_has_a_unit_and_axes(tmp_path, name):
    model = MODELS[name]()
    write(tmp_path / "a.h5", model, {"loss": [2.0, 1.0]})
    with h5py.File(tmp_path / "a.h5") as file:

        def check(path, stored):
            if isinstance(stored, h5py.Dataset):
                assert "units" in stored.attrs, path
                assert len(stored.attrs.get("axes", ())) == stored.ndim, path

        file["model"].visititems(check)
        file["history"].visititems(check)
        assert file["history/loss"].attrs["units"] == "counts"


def test_units_and_axes_are_those_of_the_field(tmp_path):
    write(tmp_path / "a.h5", MODELS["two_views"]())
    with h5py.File(tmp_path / "a.h5") as file:
        positions = file["model/scan/positions/values/values"].attrs
        waves = file["model/probe/waves/values"].attrs
        angles = file["model/propagator/angles/values"].attrs
        assert (positions["units"], list(positions["axes"])) == ("angstrom", ["view", "shot", "yx"])
        assert (waves["units"], list(waves["axes"])) == ("sqrt(counts)", ["view", "mode", "y", "x"])
        assert (angles["units"], list(angles["axes"])) == ("rad", ["view", "yx"])
        about = file.attrs
        assert about["voltage_kv"] == 80
        assert list(about["pixel_angstrom"]) == list(GRID.pixel)
        assert about["slice_angstrom"] == 8
        assert {"date", "host", "devices", "jaxptycho_version"} <= set(about)


def test_a_viewer_finds_the_phase_of_the_scanned_area(tmp_path):
    """By the attributes of NeXus, with the places of its pixels."""
    slices = stack(3, jnp.array([5.0, 12.0, 8.0]))
    model = thin(specimen=slices, frame=(1e4, 2e4))
    write(tmp_path / "a.h5", model)
    with h5py.File(tmp_path / "a.h5") as file:
        entry = file[file.attrs["default"]]
        data = entry[entry.attrs["default"]]
        assert (entry.attrs["NX_class"], data.attrs["NX_class"]) == ("NXentry", "NXdata")
        signal = data[data.attrs["signal"]]
        np.testing.assert_allclose(signal, picture(model).phase, rtol=1e-5, atol=1e-6)
        assert signal.attrs["units"] == "rad"
        axes = [data[name] for name in data.attrs["axes"]]
        assert [len(axis) for axis in axes] == list(signal.shape)
        assert {axis.attrs["units"] for axis in axes} == {"angstrom"}
        np.testing.assert_allclose(axes[0], [2.5, 11.0, 21.0])
        rows, columns = scanned(model)
        first = np.add(model.frame, ORIGIN) + np.multiply((rows.start, columns.start), GRID.pixel)
        np.testing.assert_allclose([axes[1][0], axes[2][0]], first)


def test_a_volume_is_linked_and_its_middle_is_on_the_axis(tmp_path):
    volts = jnp.arange(4 * 6 * 8, dtype=jnp.float32).reshape(4, 6, 8)
    model = thin(specimen=Volume(volts, (0.6, 0.4, 0.5), PerView(jnp.array([-0.5, 0.5]))))
    write(tmp_path / "a.h5", model)
    with h5py.File(tmp_path / "a.h5") as file:
        data = file["entry/potential"]
        np.testing.assert_array_equal(data["potential"], volts)
        assert data["potential"].attrs["units"] == "V"
        assert [data[name][n // 2] for name, n in zip("zyx", volts.shape, strict=True)] == [0, 0, 0]
        assert data["x"][1] - data["x"][0] == 0.5


def test_measurements_have_units_and_axes(tmp_path):
    data = Dataset(np.ones((2, 16, 12), int), np.zeros((2, 2)), GRID)
    write_native(tmp_path / "a.h5", data)
    with h5py.File(tmp_path / "a.h5") as file:
        found = {n: (s.attrs["units"], list(s.attrs["axes"])) for n, s in file.items()}
    assert found["counts"] == ("counts", ["shot", "y", "x"])
    assert found["positions"] == ("angstrom", ["shot", "yx"])


def test_data_are_known_by_their_hash(tmp_path):
    (tmp_path / "scan.raw").write_bytes(b"counts")
    assert data_hash(tmp_path / "scan.raw") == hashlib.sha256(b"counts").hexdigest()
    assert data_hash(tmp_path) is None


def test_a_result_is_described_in_words():
    history = {"loss": [3.0, 2.0], "held_out": [3.5, 2.5]}
    rows = describe_result(thin(specimen=stack(3)), history, {"date": "today", "job": "long"})
    assert rows["specimen"] == "3 slices, 24 Å deep (SliceStack)"
    assert "pixels of 0.4 × 0.5 Å" in rows["scanned area"]
    assert rows["beam"].startswith("80 kV")
    assert rows["probe"].startswith("2 modes (")
    assert "400 quanta per pattern (PixelProbe)" in rows["probe"]
    assert rows["loss"] == "2 at the end, least held-out loss 2.5"
    assert rows["date"] == "today"
    assert "job" not in rows
    lens = describe_result(MODELS["aberrated_probe"](), {}, {})
    assert lens["semiangle"] == "25 mrad"
    assert "C10 -60" in lens["aberrations"]
