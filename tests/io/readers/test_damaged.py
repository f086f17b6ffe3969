"""Truncated, foreign and half-written files: one sentence that names the file; exit code 2."""

import cameras
import h5py
import numpy as np
import pytest
import tifffile
from test_formats import CASES
from typer.testing import CliRunner

from jaxptycho.cli.main import app
from jaxptycho.io.datasets import read, reading_of

COUNTS = cameras.scan_counts()
SHOTS = COUNTS.reshape(-1, *cameras.FRAME)
BINARY = [name for name in CASES if not name.startswith(("zspy 2", "zspy 3"))]
COMPLETE = {"scan_shape": (1, 4), "step_angstrom": 1.0, "voltage_kv": 200.0, "pixel_angstrom": 0.3}


def refused(path) -> str:
    """The one sentence with which `inspect` ends."""
    result = CliRunner().invoke(app, ["inspect", str(path)])
    assert result.exit_code == 2, result.output
    (line,) = [line for line in result.stderr.splitlines() if not line.startswith("warning")]
    assert line.startswith("error: ")
    return line


@pytest.mark.parametrize("left", [0.02, 0.4, 0.97])
@pytest.mark.parametrize("name", BINARY)
def test_a_truncated_file_is_refused(name, left, tmp_path):
    path = CASES[name][0](tmp_path)
    path = next(tmp_path.glob("*.raw"), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(left * len(content))])
    if name in ("tiff", "tiff, big-endian") and left > 0.9:  # the counts come before what is cut
        np.testing.assert_array_equal(reading_of(path).patterns[:], SHOTS)
    else:
        assert path.parent.name in refused(path)


@pytest.mark.parametrize("name", BINARY)
def test_a_foreign_file_is_refused(name, tmp_path):
    path = CASES[name][0](tmp_path)
    path.write_bytes(b"these are my notes, and no patterns at all. " * 40)
    refused(path)


@pytest.mark.parametrize("name", [name for name in CASES if not name.startswith("zspy")])
def test_an_empty_file_is_refused(name, tmp_path):
    path = CASES[name][0](tmp_path)
    path.write_bytes(b"")
    refused(path)


def _announced(folder):
    hdr = {"Frames in Acquisition (Number)": 12, "Frames per Trigger (Number)": 4}
    return cameras.write_mib(folder / "a.mib", SHOTS[:9], hdr=hdr)


def _few_of_empad(folder):
    path = cameras.write_empad(folder, cameras.scan_counts(np.float32, (128, 128), (2, 4)))
    raw = folder / "scan_x4_y2.raw"
    raw.write_bytes(raw.read_bytes()[: 5 * 130 * 128 * 4])
    return path


def _few_of_blo(folder):
    path = cameras.write_blo(folder / "a.blo", cameras.scan_counts(np.uint8, (8, 8)))
    path.write_bytes(path.read_bytes()[:-300])
    return path


def _few_of_numpy(folder):
    np.save(folder / "a.npy", COUNTS)
    content = (folder / "a.npy").read_bytes()
    (folder / "a.npy").write_bytes(content[:-200])
    return folder / "a.npy"


def _few_of_ptypy(folder):
    path = cameras.write_ptyd(folder / "a.ptyd", COUNTS, np.zeros((12, 2)))
    with h5py.File(path, "a") as file:
        del file["chunks/2"]
    return path


INCOMPLETE = {
    "Merlin": (_announced, "holds 9 frames, and a.hdr announces 12"),
    "EMPAD": (_few_of_empad, r"holds 5 frames, and its header announces a scan of (2, 4)"),
    "NanoMegas": (_few_of_blo, "complete frames, and its header announces a scan of (3, 4)"),
    "DECTRIS": (
        lambda d: cameras.write_dectris(d, COUNTS, announced=40),
        "holds 12 frames, and its header announces 40",
    ),
    "NumPy": (_few_of_numpy, "complete patterns, and its header announces 12"),
    "ptypy": (_few_of_ptypy, "holds 10 patterns, and its meta announces 12"),
}


@pytest.mark.parametrize("name", INCOMPLETE)
def test_fewer_patterns_than_announced(name, tmp_path):
    """Refused with both numbers; the patterns that are there can be named."""
    write, words = INCOMPLETE[name]
    path = write(tmp_path)
    line = refused(path)
    assert words in line
    assert "frames=(0, " in line
    reading = reading_of(path)
    with pytest.raises(ValueError, match=r"data\.frames"):
        read(path, **COMPLETE)
    whole = reading.patterns[:4]
    known = COMPLETE | {"ignore_header": True, "frames": (0, 4)}
    data = read(path, **known, bad_data="keep")
    np.testing.assert_array_equal(data.counts[0][:], whole)


def test_a_missing_data_file_of_dectris_is_named(tmp_path):
    path = cameras.write_dectris(tmp_path, COUNTS)
    (tmp_path / "run_data_000002.h5").unlink()
    assert "run_data_000002.h5, which run_master.h5 names, is not there" in refused(path)


def test_a_damaged_data_file_of_dectris_is_refused(tmp_path):
    path = cameras.write_dectris(tmp_path, COUNTS)
    data = tmp_path / "run_data_000002.h5"
    data.write_bytes(data.read_bytes()[:500])
    refused(path)


def test_the_missing_raw_file_of_an_empad_is_named(tmp_path):
    path = cameras.write_empad(tmp_path, cameras.scan_counts(np.float32, (128, 128), (2, 4)))
    (tmp_path / "scan_x4_y2.raw").unlink()
    assert "scan_x4_y2.raw, which scan.xml names, is not there" in refused(path)


def test_several_arrays_are_listed(tmp_path):
    path = cameras.write_matlab(tmp_path / "a.mat", COUNTS, vacuum=COUNTS[:1])
    line = refused(path)
    assert "holds 2 arrays that may be patterns (/dp [4, 3, 6, 8], /vacuum" in line
    reading = reading_of(path, dataset="dp")
    assert reading.patterns.shape == (12, 8, 6)
    with pytest.raises(ValueError, match="no array of patterns called other"):
        reading_of(path, dataset="other")


def test_a_file_without_patterns_lists_what_it_holds(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["entry/spectrum"] = np.ones(7)
        file.create_group("entry2")
    assert "file with entry, entry2" in refused(tmp_path / "a.h5")
    np.savez(tmp_path / "a.npz", x=np.ones(3))
    assert "holds 0 arrays" in refused(tmp_path / "a.npz")
    np.save(tmp_path / "c.npy", COUNTS.astype(complex))
    assert "of complex128" in refused(tmp_path / "c.npy")
    np.save(tmp_path / "f.npy", np.asfortranarray(COUNTS))
    assert "column by column" in refused(tmp_path / "f.npy")
    tifffile.imwrite(tmp_path / "a.tif", np.ones((9, 8), np.uint8))
    assert "holds images [9, 8]" in refused(tmp_path / "a.tif")
    (tmp_path / "old.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(500))
    assert "save(name, '-v7.3')" in refused(tmp_path / "old.mat")


def test_binaries_that_do_not_divide(tmp_path):
    (tmp_path / "a.raw").write_bytes(SHOTS.tobytes() + b"12345")
    known = {"frame_shape": [8, 6], "dtype": "<u2"}
    with pytest.raises(ValueError, match=r"a.raw does not divide into patterns of 8 × 6 uint16"):
        read(tmp_path / "a.raw", **known)
    with pytest.raises(ValueError, match=r"a.raw holds \d+ bytes .* correct frame_shape or dtype"):
        reading_of(tmp_path / "a.raw", frame_shape=[800, 600], dtype="<u2")
    with pytest.raises(ValueError, match="dtype = 'text' is no type of counts"):
        reading_of(tmp_path / "a.raw", frame_shape=[8, 6], dtype="text")


def test_unknown_formats_say_what_to_do(tmp_path):
    (tmp_path / "a.xyz9").write_bytes(b"whatever")
    assert "in no format known here" in refused(tmp_path / "a.xyz9")
    assert "is not there" in refused(tmp_path / "none.mib")


@pytest.mark.parametrize("name", ["a.hdf5", "a.mat", "a_dp.hdf5", "a.hspy", "a.emd", "a.nxs"])
def test_half_written_patterns_of_hdf5(name, tmp_path):
    """A dataset of 12 patterns, of which 5 were written before the program stopped."""
    writers = {"a.hspy": cameras.write_hspy, "a.emd": cameras.write_berkeley}
    path = writers.get(name, cameras.write_nexus)(tmp_path / name, COUNTS)
    with h5py.File(path, "r+" if name in (*writers, "a.nxs") else "w") as file:
        place = {
            "a.hspy": "Experiments/__unnamed__/data",
            "a.emd": "signals/scan/data",
            "a.nxs": "entry/shown/data",
        }.get(name, "dp")
        if place in file:
            del file[place]
        stored = file.create_dataset(place, SHOTS.shape, np.uint16, chunks=(1, 8, 6))
        stored[:5] = SHOTS[:5]
    assert "is half written: 5 of the 12 chunks of" in refused(path)
    assert reading_of(path).patterns.shape[0] == 12


def test_links_that_lead_in_a_circle(tmp_path):
    path = cameras.write_nexus(tmp_path / "a.nxs", COUNTS)
    with h5py.File(path, "a") as file:
        file["entry/shown/back"] = h5py.SoftLink("/entry")
        file["entry/elsewhere"] = h5py.ExternalLink("none.h5", "/data")
    np.testing.assert_array_equal(reading_of(path).patterns[:], SHOTS)
