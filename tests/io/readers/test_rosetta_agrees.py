"""Files that RosettaSciIO writes, and those written here by specification: both read the same."""

import warnings
from importlib import import_module

import cameras
import numpy as np
import pytest
from test_formats import CASES

from jaxptycho.io.datasets import reading_of

pytest.importorskip("rsciio")
COUNTS = cameras.scan_counts(np.uint8, (8, 8))
AXES = [("y", 0.3, "nm"), ("x", 0.4, "nm"), ("ky", 0.7, "1/nm"), ("kx", 0.7, "1/nm")]
ENDINGS = {"hspy": "hspy", "emd": "emd", "blockfile": "blo", "nexus": "nxs", "tiff": "tif"}
STEPS = {"hspy", "emd", "blockfile", "nexus"}  # formats that keep the axes of the scan
MODULES = {"mib": "quantumdetector", "blo": "blockfile"} | {
    name: name for name in ("empad", "hspy", "zspy", "nexus", "tiff")
}


def by_rosetta(module, path):
    """Patterns of the largest signal of a file, by RosettaSciIO."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        signals = import_module(f"rsciio.{module}").file_reader(str(path))
    data = max((np.asarray(signal["data"]) for signal in signals), key=np.size)
    return data.reshape(-1, *data.shape[-2:])


@pytest.mark.parametrize("module", ENDINGS)
def test_files_of_rosettasciio(module, tmp_path):
    axes = [
        {
            "_type": "UniformDataAxis",
            "name": name,
            "scale": scale,
            "offset": 0.0,
            "units": unit,
            "size": COUNTS.shape[number],
            "navigate": number < 2,
            "is_binned": False,
            "index_in_array": number,
        }
        for number, (name, scale, unit) in enumerate(AXES)
    ]
    signal = {
        "data": COUNTS,
        "axes": axes,
        "metadata": {"General": {"title": "a"}, "Signal": {"signal_type": ""}},
        "attributes": {"_lazy": False, "ragged": False},
        "package_info": "",
    }
    further = ("original_metadata", "learning_results", "models", "tmp_parameters")
    signal |= {name: {} for name in further}
    path = tmp_path / f"a.{ENDINGS[module]}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import_module(f"rsciio.{module}").file_writer(str(path), signal)
    reading = reading_of(path)
    np.testing.assert_array_equal(reading.patterns[:].reshape(COUNTS.shape), COUNTS)
    if module in STEPS:
        assert reading["scan_shape"].value == (3, 4)
        np.testing.assert_allclose(reading["step_angstrom"].value, (3, 4))


@pytest.mark.parametrize(
    "name",
    [n for n in CASES if n.split()[0].strip(",") in MODULES and n not in ("mib quad", "zspy zip")],
)
def test_files_by_specification(name, tmp_path):
    path = CASES[name][0](tmp_path)
    expected = by_rosetta(MODULES[name.split()[0].strip(",")], path)
    np.testing.assert_array_equal(reading_of(path).patterns[:], expected)
