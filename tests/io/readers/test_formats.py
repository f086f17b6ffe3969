"""Every format, written by its specification: values in any order, shape, quantities, origins."""

import cameras
import numpy as np
import pytest
import tifffile

from jaxptycho.io.datasets import reading_of
from jaxptycho.io.readers.completion import completed, positions_of

COUNTS = cameras.scan_counts()
BYTES = cameras.scan_counts(np.uint8)
SQUARE = cameras.scan_counts(np.uint8, (8, 8))
EMPAD = cameras.scan_counts(np.float32, (128, 128), (2, 3))
PLACES = np.random.default_rng(2).uniform(-40, 40, (12, 2))


def _npy(folder):
    np.save(folder / "scan.npy", COUNTS)
    return folder / "scan.npy"


def _big_endian(folder):
    np.save(folder / "big.npy", COUNTS.astype(">u2"))
    return folder / "big.npy"


def _tiff(folder, **options):
    shots = COUNTS.reshape(-1, *cameras.FRAME)
    tifffile.imwrite(folder / "scan.tif", shots, photometric="minisblack", **options)
    return folder / "scan.tif"


def _hdf5(folder):
    import h5py

    with h5py.File(folder / "ptyrad.hdf5", "w") as file:
        file.create_dataset("meas", data=COUNTS, compression="gzip")
        file["probe"] = np.ones((8, 6), complex)
    return folder / "ptyrad.hdf5"


# writer in a folder, counts, quantities of the header
CASES = {
    "mib U16": (
        lambda d: cameras.write_mib(d / "a.mib", COUNTS, times=cameras.line_times()),
        COUNTS,
        {"scan_shape": (3, 4), "exposure_s": 1e-3},
    ),
    "mib U08": (lambda d: cameras.write_mib(d / "a.mib", BYTES, "U08", 6), BYTES, {}),
    "mib U32": (lambda d: cameras.write_mib(d / "a.mib", COUNTS, "U32", 24), COUNTS, {}),
    "mib quad": (
        lambda d: cameras.write_mib(
            d / "a.mib", COUNTS, layout="2x2G", chips=4, hdr={"ScanX": 4, "ScanY": 3}
        ),
        COUNTS,
        {"scan_shape": (3, 4)},
    ),
    "mib frames per trigger": (
        lambda d: cameras.write_mib(
            d / "a.mib",
            COUNTS,
            hdr={"Frames in Acquisition (Number)": 12, "Frames per Trigger (Number)": 4},
        ),
        COUNTS,
        {"scan_shape": (3, 4)},
    ),
    "empad": (
        lambda d: cameras.write_empad(d, EMPAD),
        EMPAD,
        {
            "scan_shape": (2, 3),
            "voltage_kv": 300,
            "step_angstrom": 400 / 3,
            "dk_inverse_angstrom": 0.02,
            "exposure_s": 2e-3,
        },
    ),
    "empad 1.2": (
        lambda d: cameras.write_empad(d, EMPAD, 2),
        EMPAD,
        {"voltage_kv": 80, "step_angstrom": 400 / 3, "scan_rotation_deg": np.rad2deg(0.5)},
    ),
    "blo": (
        lambda d: cameras.write_blo(d / "a.blo", SQUARE),
        SQUARE,
        {
            "scan_shape": (3, 4),
            "step_angstrom": (15, 20),
            "voltage_kv": 200,
            "detector_step_mrad": 0.4,
            "scan_rotation_deg": 30,
            "camera_length_m": 0.25,
        },
    ),
    "dectris": (
        lambda d: cameras.write_dectris(d, COUNTS),
        COUNTS,
        {
            "scan_shape": (3, 4),
            "step_angstrom": 0.5,
            "voltage_kv": 200,
            "detector_step_mrad": 0.5,
            "scan_rotation_deg": 12,
            "exposure_s": 1e-4,
        },
    ),
    "emdfile": (
        lambda d: cameras.write_emdfile(d / "a.h5", COUNTS, 21.4),
        COUNTS,
        {
            "scan_shape": (3, 4),
            "step_angstrom": (2, 3),
            "dk_inverse_angstrom": (0.02, 0.02),
            "semiangle_mrad": 21.4,
        },
    ),
    "emd": (
        lambda d: cameras.write_berkeley(d / "a.emd", COUNTS),
        COUNTS,
        {"step_angstrom": (4, 5), "dk_inverse_angstrom": (0.05, 0.05)},
    ),
    "emd, detector first": (
        lambda d: cameras.write_berkeley(d / "a.emd", COUNTS, True),
        COUNTS,
        {"step_angstrom": (4, 5), "dk_inverse_angstrom": (0.05, 0.05)},
    ),
    "hspy": (
        lambda d: cameras.write_hspy(d / "a.hspy", COUNTS),
        COUNTS,
        {
            "step_angstrom": (3, 4),
            "detector_step_mrad": (0.7, 0.7),
            "voltage_kv": 120,
            "semiangle_mrad": 15,
        },
    ),
    "zspy 2": (
        lambda d: cameras.write_zspy(d / "a.zspy", COUNTS),
        COUNTS,
        {"step_angstrom": (3, 4), "voltage_kv": 120},
    ),
    "zspy 3": (
        lambda d: cameras.write_zspy(d / "a.zspy", COUNTS, 3),
        COUNTS,
        {"detector_step_mrad": (0.7, 0.7), "semiangle_mrad": 15},
    ),
    "zspy zip": (
        lambda d: cameras.write_zspy(d / "a.zip", COUNTS),
        COUNTS,
        {"step_angstrom": (3, 4)},
    ),
    "matlab": (
        lambda d: cameras.write_matlab(d / "a.mat", COUNTS, voltage=np.float64(300)),
        COUNTS,
        {"scan_shape": (3, 4)},
    ),
    "fold_slice": (
        lambda d: cameras.write_fold_slice(d / "data_roi0_dp.hdf5", COUNTS),
        COUNTS.transpose(1, 0, 2, 3),
        {},
    ),
    "ptyd": (
        lambda d: cameras.write_ptyd(d / "a.ptyd", COUNTS, PLACES),
        COUNTS,
        {"wavelength_angstrom": 12.39842 / 12.4, "detector_step_mrad": (0.025, 0.025)},
    ),
    "nexus": (
        lambda d: cameras.write_nexus(d / "a.nxs", COUNTS),
        COUNTS,
        {"scan_shape": (3, 4), "step_angstrom": (5, 6)},
    ),
    "npy": (_npy, COUNTS, {"scan_shape": (3, 4)}),
    "npy, big-endian": (_big_endian, COUNTS, {}),
    "npz": (lambda d: cameras.write_npz(d / "a.npz", COUNTS), COUNTS, {"scan_shape": (3, 4)}),
    "npz, compressed": (lambda d: cameras.write_npz(d / "a.npz", COUNTS, True), COUNTS, {}),
    "tiff": (_tiff, COUNTS, {}),
    "tiff, big-endian": (lambda d: _tiff(d, byteorder=">"), COUNTS, {}),
    "tiff, compressed": (lambda d: _tiff(d, compression="zlib"), COUNTS, {}),
    "PtyRAD": (_hdf5, COUNTS, {"scan_shape": (3, 4)}),
}


@pytest.mark.parametrize("name", CASES)
def test_a_file_gives_its_counts_and_quantities(name, tmp_path):
    write, counts, quantities = CASES[name]
    reading = reading_of(write(tmp_path))
    shots = counts.reshape(-1, *counts.shape[-2:])
    assert reading.patterns.shape == shots.shape
    for index in (slice(None), slice(2, 5), [5], [4, 0, 5, 1], np.array([], int), 3):
        np.testing.assert_array_equal(reading.patterns[index], shots[index], str(index))
    for key, value in quantities.items():
        np.testing.assert_allclose(reading[key].value, value, rtol=1e-6, err_msg=key)
        assert reading[key].origin in ("header", "measured")
    assert reading["defocus_angstrom"].origin == "unknown"


@pytest.mark.parametrize("depth", [1, 6, 12, 24])
@pytest.mark.parametrize("chips", [1, 4])
def test_raw_modes_of_merlin(depth, chips, tmp_path):
    side = 256 if chips == 1 else 512
    rows = 8 if chips == 1 else 12  # of a region of interest
    counts = cameras.scan_counts(np.uint32, (rows, side), (1, 3), 2**depth)
    layout = "1x1" if chips == 1 else "2x2"
    path = cameras.write_mib(tmp_path / "a.mib", counts, "R64", depth, layout, chips)
    reading = reading_of(path)
    np.testing.assert_array_equal(reading.patterns[:], counts[0])
    np.testing.assert_array_equal(reading.patterns[[2, 0]], counts[0, [2, 0]])


def test_continued_files_of_merlin_are_one(tmp_path):
    shots = COUNTS.reshape(-1, *cameras.FRAME)
    hdr = {"Frames in Acquisition (Number)": 12, "Frames per Trigger (Number)": 4}
    cameras.write_mib(tmp_path / "run1.mib", shots[:5], hdr=hdr)
    cameras.write_mib(tmp_path / "run2.mib", shots[5:7], first=6)
    cameras.write_mib(tmp_path / "run10.mib", shots[7:], first=8)
    cameras.write_mib(tmp_path / "run3.mib", shots[:5], first=40)  # of another run
    reading = reading_of(tmp_path / "run1.mib")
    np.testing.assert_array_equal(reading.patterns[:], shots)
    assert reading["scan_shape"].value == (3, 4)


def test_uneven_times_tell_no_lines(tmp_path):
    rng = np.random.default_rng(3)
    moments = np.cumsum(rng.uniform(1, 2, 12))
    times = [f"2024-01-01T00:00:{m:012.9f}Z" for m in moments]
    path = cameras.write_mib(tmp_path / "a.mib", COUNTS, times=times)
    assert reading_of(path)["scan_shape"].origin == "unknown"


def test_the_header_of_merlin_leads_to_its_frames(tmp_path):
    path = cameras.write_mib(tmp_path / "a.mib", COUNTS, hdr={"ScanX": 4, "ScanY": 3})
    reading = reading_of(path.with_suffix(".hdr"))
    assert (reading.path, reading.patterns.shape[0]) == (path, 12)


def test_the_raw_file_of_an_empad_finds_its_header(tmp_path):
    cameras.write_empad(tmp_path, EMPAD)
    reading = reading_of(tmp_path / "scan_x3_y2.raw")
    assert (reading["voltage_kv"].value, reading["scan_shape"].value) == (300, (2, 3))
    (tmp_path / "scan.xml").unlink()
    reading = reading_of(tmp_path / "scan_x3_y2.raw")
    assert reading["scan_shape"].value == (2, 3)
    assert reading["voltage_kv"].origin == "unknown"


def test_pixels_that_dectris_masks_are_masked(tmp_path):
    bad = np.zeros(cameras.FRAME, int)
    bad[2, 3] = 8
    reading = reading_of(cameras.write_dectris(tmp_path, COUNTS, mask=bad))
    np.testing.assert_array_equal(reading.mask, bad == 0)


def test_weights_and_positions_of_ptypy(tmp_path):
    reading = reading_of(cameras.write_ptyd(tmp_path / "a.ptyd", COUNTS, PLACES))
    np.testing.assert_allclose(reading.positions, PLACES)
    assert np.argwhere(~reading.mask).tolist() == [[0, 1]]


def test_fold_slice_numbers_shots_along_y_first(tmp_path):
    path = cameras.write_fold_slice(tmp_path / "data_dp.hdf5", COUNTS)
    reading = completed(reading_of(path), {"scan_shape": (3, 4), "step_angstrom": (2.0, 3.0)})
    places = positions_of(reading)
    for shot, (y, x) in enumerate(places):
        np.testing.assert_array_equal(reading.patterns[shot], COUNTS[int(y // 2), int(x // 3)])
    path = cameras.write_fold_slice(tmp_path / "b_dp.hdf5", COUNTS, PLACES)
    np.testing.assert_allclose(reading_of(path).positions, PLACES)


@pytest.mark.parametrize("swapped", [False, True])
def test_axes_of_matlab(swapped, tmp_path):
    """Where patterns are square and the scan is not, the axes may come in either order."""
    counts = cameras.scan_counts(frame=(8, 8))
    stored = counts.transpose(2, 3, 0, 1) if swapped else counts
    reading = reading_of(cameras.write_matlab(tmp_path / "a.mat", stored))
    np.testing.assert_array_equal(reading.patterns[:].reshape(counts.shape), counts)
    assert reading.format.endswith("scan y, scan x, y, x" if swapped else "y, x, scan y, scan x")


@pytest.mark.parametrize(("gap", "last"), [(0, b""), (16, b""), (16, 16 * b".")])
def test_binaries_of_given_shape_and_type(gap, last, tmp_path):
    shots = COUNTS.reshape(-1, *cameras.FRAME)
    parts = [shot.astype(">u2").tobytes() for shot in shots]
    (tmp_path / "a.bin").write_bytes(b"head" + (b"." * gap).join(parts) + last)
    options = {"frame_shape": [8, 6], "dtype": ">u2", "offset_bytes": 4, "gap_bytes": gap}
    reading = reading_of(tmp_path / "a.bin", **options)
    np.testing.assert_array_equal(reading.patterns[:], shots)
    with pytest.raises(ValueError, match=r"a.bin holds 1\d+ bytes without a header; give the size"):
        reading_of(tmp_path / "a.bin")
