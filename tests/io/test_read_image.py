"""Masks and dark images of files: every format, and what they do to counts."""

import cameras
import h5py
import numpy as np
import pytest
import tifffile

import jaxptycho as jp
from jaxptycho.io.images import read_image
from jaxptycho.io.native import write_native

RNG = np.random.default_rng(3)
COUNTS = RNG.poisson(20, (12, 6, 8)).astype(np.uint16) + np.uint16(40)
DARK = RNG.poisson(30, (6, 8)).astype(np.float32)
MASK = np.indices((6, 8)).sum(0) % 5 > 0
GIVEN = {"scan_shape": (3, 4), "step_angstrom": 0.4, "voltage_kv": 300}
GIVEN |= {"dk_inverse_angstrom": 0.02, "bad_data": "keep"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A scan, its dark image and its mask, in several formats."""
    folder = tmp_path_factory.mktemp("images")
    np.save(folder / "scan.npy", COUNTS)
    np.save(folder / "dark.npy", DARK)
    np.save(folder / "mask.npy", MASK)
    tifffile.imwrite(folder / "dark.tif", DARK)
    with h5py.File(folder / "dark.h5", "w") as file:
        file["camera/dark"] = DARK
    with h5py.File(folder / "mask.h5", "w") as file:
        file["mask"] = MASK
    return folder


def shown(data):
    return np.fft.fftshift(data.patterns(0, np.arange(12)), axes=(1, 2))


@pytest.mark.parametrize("name", ["dark.npy", "dark.tif", "dark.h5"])
def test_an_image_comes_back(folder, name):
    np.testing.assert_array_equal(read_image(folder / name), DARK)


def test_a_mask_stays_true_or_false(folder):
    assert read_image(folder / "mask.h5").dtype == bool


def test_patterns_of_a_camera_are_averaged(tmp_path):
    path = cameras.write_mib(tmp_path / "dark.mib", COUNTS.reshape(3, 4, 6, 8))
    np.testing.assert_allclose(read_image(path), COUNTS.mean(0))
    np.save(tmp_path / "stack.npy", COUNTS)
    np.testing.assert_allclose(read_image(tmp_path / "stack.npy"), COUNTS.mean(0))


def test_patterns_of_a_native_file_are_averaged(tmp_path):
    places = np.indices((3, 4)).reshape(2, -1).T * 0.4
    data = jp.Dataset(COUNTS, places, jp.Grid((6, 8), 0.4, 300.0), bad_data="keep")
    write_native(tmp_path / "dark.h5", data)
    np.testing.assert_allclose(read_image(tmp_path / "dark.h5"), COUNTS.mean(0))


def test_a_dark_image_is_subtracted_before_the_threshold_and_the_gain(folder):
    known = {"dark_file": folder / "dark.h5", "threshold": 15.0, "counts_per_electron": 2.0}
    data = jp.read(folder / "scan.npy", **GIVEN, **known)
    difference = COUNTS - DARK
    np.testing.assert_allclose(shown(data), np.where(difference < 15, 0, difference) / 2)


def test_a_threshold_alone_keeps_the_type(folder):
    data = jp.read(folder / "scan.npy", **GIVEN, threshold=60.0)
    np.testing.assert_array_equal(shown(data), np.where(COUNTS < 60, 0, COUNTS))
    assert data.kinds == [np.dtype(np.uint16)]


def test_images_are_in_the_layout_of_the_file(folder, tmp_path):
    """A file with the zero frequency in the corner has its dark image and its mask there, too."""
    plain = jp.read(folder / "scan.npy", **GIVEN)
    np.save(tmp_path / "scan.npy", np.fft.ifftshift(COUNTS, axes=(1, 2)))
    np.save(tmp_path / "mask.npy", np.fft.ifftshift(MASK))
    np.save(tmp_path / "dark.npy", np.fft.ifftshift(DARK))
    known = {"mask_file": tmp_path / "mask.npy", "dark_file": tmp_path / "dark.npy"}
    data = jp.read(tmp_path / "scan.npy", **GIVEN, **known, zero_frequency="corner", threshold=0.0)
    np.testing.assert_array_equal(data.mask, MASK)
    expected = np.where(MASK, np.maximum(shown(plain) - DARK, 0), 0)
    np.testing.assert_allclose(shown(data), expected, rtol=1e-6)


@pytest.mark.parametrize("axis", [0.0, 90.0])
def test_images_follow_the_tilt_axis(tmp_path, axis):
    places = np.indices((3, 4)).reshape(2, -1).T * 0.4 - 0.5
    tilts = np.array([-0.2, 0.2])
    grid = jp.Grid((6, 8), 0.4, 300.0)
    own = np.indices((6, 8)).sum(0) % 3 > 0
    both = np.stack([COUNTS] * 2)
    data = jp.Dataset(both, np.stack([places] * 2), grid, own, tilts=tilts, bad_data="keep")
    write_native(tmp_path / "tilts.h5", data)
    np.save(tmp_path / "mask.npy", MASK)
    np.save(tmp_path / "dark.npy", DARK)
    known = {"mask_file": tmp_path / "mask.npy", "dark_file": tmp_path / "dark.npy"}
    found = jp.read(
        tmp_path / "tilts.h5", **known, threshold=0.0, bad_data="keep", tilt_axis_deg=axis
    )
    seen = MASK & own
    assert found.mask.sum() == seen.sum()
    expected = np.where(seen, np.maximum(np.where(own, COUNTS[3], 0) - DARK, 0), 0)
    assert found.dose(1)[3] == pytest.approx(expected.sum())


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"dark_file": "small.npy"}, "the image of dark_file is 4 × 4 pixels, and the patterns"),
        ({"mask_file": "small.npy"}, "the image of mask_file is 4 × 4 pixels"),
        ({"mask_file": "nothing.npy"}, "not there"),
        ({"dark_file": "text.txt"}, "holds no image that is known here; give an image"),
    ],
)
def test_images_that_do_not_fit_are_refused(folder, tmp_path, given, words):
    np.save(tmp_path / "small.npy", np.ones((4, 4)))
    (tmp_path / "text.txt").write_text("dark")
    ((name, file),) = given.items()
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        jp.read(folder / "scan.npy", **GIVEN, **{name: tmp_path / file})


def test_a_reader_of_yours_corrects_its_counts(folder):
    def read_mine(path, **known):
        raise AssertionError("not called")

    with pytest.raises(ValueError, match="threshold came with the reader read_mine"):
        jp.read(folder / "scan.npy", reader=read_mine, threshold=2.0)
