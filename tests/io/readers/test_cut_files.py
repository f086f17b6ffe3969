"""Real files of cameras, cut anywhere or with other contents: refused, or read as they are."""

import shutil
import zipfile

import cameras
import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from jaxptycho.cli.main import app
from jaxptycho.io.datasets import reading_of

MERLIN = "Merlin_navigation4x2_ROI.zip"
DATACUBE = "4DSTEM_simulation/data/datacubes/CBED_array_depth0001/datacube"
# file, and the options that it requires
FILES = {
    "001_4x2_6bit.mib": {},
    "002_4x2_6bit_roi128.mib": {},
    "001_4x2_6bit.hdr": {},
    "test1.blo": {},
    "Si100_4D.emd": {"dataset": DATACUBE},
    "py4DSTEM_size2x3x4x5.h5": {},
    "nexus_dls_example.nxs": {"dataset": "/entry1/testdata/nexustest/data"},
    "dm4_3d.dm4": {},
    "map4x4.xml": {},
    "test_00_master.h5": {},
    "test_00_data_000001.h5": {},
}
FOREIGN = {
    "notes": b"these are my notes, and no patterns at all. " * 100,
    "zeros": bytes(5000),
    "one byte": b"x",
    "a picture": b"\x89PNG\r\n\x1a\n" + np.random.default_rng(1).bytes(3000),
    "noise": np.random.default_rng(0).bytes(5000),
    "head of HDF5": b"\x89HDF\r\n\x1a\n" + bytes(3000),
    "head of Merlin": b"MQ1,000001,00384,01,0000,0000,U16,   1x1,01," + bytes(600),
    "head of NanoMegas": b"IMGBLO" + bytes(5000),
    "head of TIFF": b"II*\0" + bytes(500),
    "head of NumPy": b"\x93NUMPY" + bytes(100),
}


@pytest.fixture
def copied(request, data_dir, tmp_path):
    """Writable copy of a camera's file with those beside it."""
    name = request.param
    source = data_dir("cameras")
    for pattern in ("arina/*", "*.blo", "*.emd", "*.h5", "*.nxs", "*.dm4", "map4x4.xml"):
        for file in source.glob(pattern):
            if file.name == name or (file.parent.name == "arina" and name.startswith("test_00")):
                shutil.copyfile(file, tmp_path / file.name)
    if name.endswith((".mib", ".hdr")):
        with zipfile.ZipFile(source / MERLIN) as archive:
            archive.extractall(tmp_path)
    if name.endswith(".xml"):
        np.ones((16, 130, 128), "<f4").tofile(tmp_path / "scan_x4_y4.raw")
    if name.endswith(".dm4"):
        pytest.importorskip("rsciio")
    if name.startswith("test_00"):
        pytest.importorskip("hdf5plugin")
    return next(tmp_path.rglob(name))


def outcome(path, options):
    """Patterns of a file, or None where it is refused in one sentence or as incomplete."""
    try:
        reading = reading_of(path, **options)
        return None if reading.fault else np.asarray(reading.patterns[:])
    except (ValueError, FileNotFoundError) as error:
        sentence = str(error)
    assert path.stem in sentence
    assert "\n" not in sentence
    return None


def places(size):
    """Lengths in the header, in the data, and just before the end."""
    middle = (int(part * size) for part in (0.02, 0.1, 0.25, 0.5, 0.75, 0.97))
    return sorted({n for n in (0, 1, 8, 60, 400, *middle, size - 100, size - 1) if 0 <= n < size})


@pytest.mark.parametrize("copied", FILES, indirect=True)
def test_a_cut_file_is_refused_or_complete(copied):
    """What comes after the counts may be missing; the counts are those of the complete file."""
    options = FILES[copied.name]
    whole = copied.read_bytes()
    patterns = outcome(copied, options)
    for size in places(len(whole)):
        copied.write_bytes(whole[:size])
        left = outcome(copied, options)
        assert left is None or np.array_equal(left, patterns), f"cut to {size} bytes"


@pytest.mark.parametrize("copied", sorted(set(FILES) - {"001_4x2_6bit.hdr"}), indirect=True)
def test_foreign_contents_are_refused(copied):
    for what, content in FOREIGN.items():
        copied.write_bytes(content)
        assert outcome(copied, FILES[copied.name]) is None, what


@pytest.mark.parametrize("copied", FILES, indirect=True)
def test_inspect_ends_with_a_sentence(copied):
    whole = copied.read_bytes()
    for content in (whole[: len(whole) // 2], FOREIGN["noise"]):
        copied.write_bytes(content)
        result = CliRunner().invoke(app, ["inspect", str(copied)])
        assert result.exit_code == 2 or copied.suffix == ".hdr"
        assert result.exception is None or isinstance(result.exception, SystemExit)


def _merlin(folder):
    return cameras.write_mib(folder / "a.mib", cameras.scan_counts())


def _blo(folder):
    return cameras.write_blo(folder / "a.blo", cameras.scan_counts(np.uint8, (8, 8)))


@pytest.mark.parametrize("write", [_merlin, _blo])
def test_frames_whose_space_is_claimed_and_not_written(write, tmp_path):
    path = write(tmp_path)
    whole = path.read_bytes()
    half = len(whole) // 2
    path.write_bytes(whole[:half] + bytes(len(whole) - half))
    assert "has space for 12 frames" in str(reading_of(path).fault)
    record = 480 if path.suffix == ".mib" else 70
    path.write_bytes(whole[: -3 * record] + bytes(record) + whole[-2 * record :])
    reading = reading_of(path)
    assert reading.patterns[[8, 10]].shape[0] == 2
    with pytest.raises(ValueError, match=r"half written: shot 9 does not begin as a frame"):
        reading.patterns[:]


@pytest.mark.parametrize("version", [2, 3])
def test_chunks_of_zarr_that_are_damaged_or_missing(version, tmp_path):
    path = cameras.write_zspy(tmp_path / "a.zspy", cameras.scan_counts(), version)
    (chunk,) = path.rglob("0.0.0.0" if version == 2 else "c/0/0/0/0")
    chunk.write_bytes(chunk.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"patterns of .*a.zspy cannot be read"):
        reading_of(path).patterns[:]
    chunk.unlink()
    assert reading_of(path).notes == ("1 of 1 chunks are not stored and read as 0",)


def test_a_damaged_archive_of_numpy(tmp_path):
    path = cameras.write_npz(tmp_path / "a.npz", cameras.scan_counts(), compressed=True)
    whole = path.read_bytes()
    path.write_bytes(whole[:500] + bytes(200) + whole[700:])
    with pytest.raises(ValueError, match=r"a.npz is damaged"):
        reading_of(path)


@pytest.mark.parametrize("name", ["counts", "entry_1/data_1/data"])
def test_files_of_ours_and_of_cxi(name, tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file[name] = cameras.scan_counts()
    whole = path.read_bytes()
    for size in (60, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        result = CliRunner().invoke(app, ["inspect", str(path)])
        assert (result.exit_code, path.name in result.stderr) == (2, True)
