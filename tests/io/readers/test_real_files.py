"""Real files of cameras: counts, shapes and metadata are those that RosettaSciIO reads."""

import shutil
import sys
import warnings
import zipfile
from importlib import import_module

import numpy as np
import pytest

from jaxptycho.io.datasets import read, reading_of

pytest.importorskip("rsciio")


def by_rosetta(module, path):
    """Signals of a file as RosettaSciIO reads them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return import_module(f"rsciio.{module}").file_reader(str(path))


def same_patterns(reading, signal):
    """Reading and signal hold the same patterns in the same scan."""
    data = np.asarray(signal["data"])
    assert reading["scan_shape"].value in (data.shape[:2], None)
    np.testing.assert_array_equal(reading.patterns[:], data.reshape(-1, *data.shape[-2:]))


def scales(signal, kind):
    """Scales of the axes of a signal in Å or 1/Å."""
    units = {"nm": 10, "µm": 1e4, "\u03bcm": 1e4, "A": 1, "1/nm": 0.1, "1 / Å": 1, "1 / nm": 0.1}
    axes = signal["axes"][:2] if kind == "scan" else signal["axes"][2:]
    return [axis["scale"] * units[axis["units"]] for axis in axes]


@pytest.fixture(scope="module")
def merlin(data_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("merlin")
    with zipfile.ZipFile(data_dir("cameras/Merlin_navigation4x2_ROI.zip")) as archive:
        archive.extractall(folder)
    return folder


@pytest.mark.parametrize("name", ["001_4x2_6bit", "002_4x2_6bit_roi128"])
def test_merlin(name, merlin):
    path = merlin / f"{name}.mib"
    (signal,) = by_rosetta("quantumdetector", path)
    reading = reading_of(path)
    same_patterns(reading, signal)
    dwell = signal["metadata"]["Acquisition_instrument"]["dwell_time"]
    assert reading["exposure_s"].value == dwell
    assert reading["scan_shape"][:2] == ((2, 4), "measured")


@pytest.mark.parametrize(
    ("xml", "raw", "frames"),
    [
        ("map4x4.xml", "scan_x4_y4.raw", 16),
        ("EMPAD_v1.2.2_x32_y64_size0.8.xml", "scan_x32_y64.raw", 2048),
    ],
)
def test_empad(xml, raw, frames, data_dir, tmp_path):
    shutil.copy(data_dir(f"cameras/{xml}"), tmp_path / xml)
    counts = np.memmap(tmp_path / raw, "<f4", "w+", shape=(frames, 130, 128))
    counts[[0, 5, -1]] = np.random.default_rng(0).poisson(3, (3, 130, 128))
    counts.flush()
    (signal,) = by_rosetta("empad", tmp_path / xml)
    reading = reading_of(tmp_path / xml)
    same_patterns(reading, signal)
    np.testing.assert_allclose(reading["step_angstrom"].value, scales(signal, "scan")[0])
    if signal["axes"][2]["units"] is not None:
        np.testing.assert_allclose(
            reading["dk_inverse_angstrom"].value, scales(signal, "detector")[0]
        )
    assert reading["voltage_kv"][:2] == (300, "header")
    assert reading["camera_length_m"].value in (0.7225, 0.369)


def test_arina(data_dir):
    pytest.importorskip("hdf5plugin")
    path = data_dir("cameras/arina/test_00_master.h5")
    (signal,) = by_rosetta("arina", path)
    reading = reading_of(path)
    same_patterns(reading, signal)
    np.testing.assert_allclose(reading["step_angstrom"].value, scales(signal, "scan")[0])
    assert reading["scan_shape"][:2] == ((4, 4), "header")
    assert reading["voltage_kv"].value == 300


def test_arina_without_the_plugin_names_the_package(data_dir, monkeypatch):
    monkeypatch.setitem(sys.modules, "hdf5plugin", None)
    monkeypatch.setattr("h5py.h5z.filter_avail", lambda number: number < 256)
    with pytest.raises(ValueError, match=r"filter 32008 .* pip install hdf5plugin"):
        reading_of(data_dir("cameras/arina/test_00_master.h5"))


def test_nanomegas(data_dir):
    path = data_dir("cameras/test1.blo")
    (signal,) = by_rosetta("blockfile", path)
    reading = reading_of(path)
    same_patterns(reading, signal)
    np.testing.assert_allclose(reading["step_angstrom"].value, scales(signal, "scan"))
    header = signal["original_metadata"]["blockfile_header"]
    assert reading["voltage_kv"].value == header["Beam_energy"] / 1e3
    assert reading["scan_rotation_deg"].value == header["Scan_rotation"] / 100
    metres = signal["axes"][2]["scale"] * 1e-2  # cm
    np.testing.assert_allclose(reading["detector_step_mrad"].value, 1e3 * metres / 0.2)
    with pytest.warns(UserWarning, match="saturated"):
        assert read(path).n_shots == [6]


def test_gatan_through_rosettasciio(data_dir):
    path = data_dir("cameras/dm4_3d.dm4")
    (signal,) = by_rosetta("digitalmicrograph", path)
    same_patterns(reading_of(path), signal)


def test_rosettasciio_is_asked_for_where_it_is_missing(data_dir, monkeypatch):
    monkeypatch.setitem(sys.modules, "rsciio", None)
    for name in [name for name in sys.modules if name.startswith("rsciio.")]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ValueError, match=r"GPL-3.0.*pip install 'jaxptycho\[formats\]'"):
        reading_of(data_dir("cameras/dm4_3d.dm4"))


def test_py4dstem(data_dir):
    path = data_dir("cameras/py4DSTEM_size2x3x4x5.h5")
    (signal,) = by_rosetta("emd", path)
    reading = reading_of(path)
    same_patterns(reading, signal)
    np.testing.assert_allclose(reading["step_angstrom"].value, scales(signal, "scan"))
    np.testing.assert_allclose(reading["dk_inverse_angstrom"].value, scales(signal, "detector"))


def test_two_scans_of_an_emd_are_named(data_dir):
    path = data_dir("cameras/Si100_4D.emd")
    with pytest.raises(ValueError, match=r"2 arrays .* name one: dataset="):
        reading_of(path)
    (signal,) = by_rosetta("emd", path)
    scan = {"data": signal["data"][1], "axes": signal["axes"][1:]}
    name = "4DSTEM_simulation/data/datacubes/CBED_array_depth0001/datacube"
    reading = reading_of(path, dataset=name)
    same_patterns(reading, scan)
    np.testing.assert_allclose(reading["step_angstrom"].value, scales(scan, "scan"))
    np.testing.assert_allclose(
        reading["dk_inverse_angstrom"].value, scales(scan, "detector"), rtol=1e-5
    )
    assert reading["voltage_kv"].value == 100


def test_spectra_of_diamond_are_no_patterns(data_dir):
    path = data_dir("cameras/nexus_dls_example.nxs")
    with pytest.raises(ValueError, match=r"holds spectra \[10, 10, 15\] in /entry1/testdata"):
        reading_of(path)
    signal = by_rosetta("nexus", path)[0]
    reading = reading_of(path, dataset="/entry1/testdata/nexustest/data")
    np.testing.assert_array_equal(reading.patterns[:], signal["data"])
