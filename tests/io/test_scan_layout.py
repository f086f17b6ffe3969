"""Layout of a scan: order, transform, rotation and linear map, in files of every kind."""

import cameras
import h5py
import numpy as np
import pytest

import jaxptycho as jp
from jaxptycho.io.native import write_native
from jaxptycho.io.scan_layout import SCAN_TRANSFORMS, ScanLayout, raster_positions
from jaxptycho.simulate.scan import raster

GIVEN = {"scan_shape": (3, 4), "step_angstrom": (0.4, 0.5), "voltage_kv": 300}
GIVEN |= {"dk_inverse_angstrom": 0.02}
COUNTS = np.random.default_rng(0).poisson(9, (12, 6, 6)).astype(np.uint16) + np.uint16(1)
PLACES = np.random.default_rng(1).uniform(-40, 40, (12, 2))


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    path = tmp_path_factory.mktemp("npy") / "scan.npy"
    np.save(path, COUNTS)
    return path


def centred(positions):
    return positions - positions.mean(0)


def test_a_serpentine_runs_every_second_line_backwards():
    x = raster_positions((3, 4), (2.0, 1.0), "serpentine")
    np.testing.assert_array_equal(x[:, 0], np.repeat([0, 2, 4], 4))
    np.testing.assert_array_equal(x[:, 1], [0, 1, 2, 3, 3, 2, 1, 0, 0, 1, 2, 3])
    y = raster_positions((3, 4), (2.0, 1.0), "serpentine", "y")
    np.testing.assert_array_equal(y[:, 0], [0, 2, 4, 4, 2, 0, 0, 2, 4, 4, 2, 0])
    np.testing.assert_array_equal(y[:, 1], np.repeat([0, 1, 2, 3], 3))


def test_neighbours_in_a_serpentine_are_a_step_apart(plain):
    data = jp.read(plain, **GIVEN | {"step_angstrom": 0.4}, scan_order="serpentine")
    distances = np.linalg.norm(np.diff(data.positions[0], axis=0), axis=1)
    np.testing.assert_allclose(distances, 0.4)


@pytest.mark.parametrize("quarter", [1, 2, 3])
def test_a_rotation_by_quarters_is_a_transform(quarter):
    angle = 90.0 * quarter
    one = ScanLayout(rotation_deg=angle).matrix
    np.testing.assert_allclose(one, SCAN_TRANSFORMS[f"rotate_{angle:.0f}"], atol=1e-12)


@pytest.mark.parametrize("angle", [-120.6, 17.0, 200.0])
def test_a_rotation_is_that_of_a_simulated_scan(angle):
    nominal = raster((5, 6), 0.7)
    (found,) = ScanLayout(rotation_deg=angle).applied([nominal])
    np.testing.assert_allclose(found, raster((5, 6), 0.7, np.deg2rad(angle)), atol=1e-12)


def test_a_measured_scan_has_the_rotation_that_its_file_names(data_dir):
    path = data_dir("rotavirus_300kV_64x64.h5")
    with h5py.File(path) as file:
        shape, step, angle = (
            file.attrs[n] for n in ("scan_shape", "scan_step_angstrom", "scan_rotation_deg")
        )
        stored = file["positions"][()]
    nominal = raster_positions(shape.tolist(), float(step))
    (found,) = ScanLayout(rotation_deg=float(angle)).applied([nominal])
    np.testing.assert_allclose(centred(found), centred(stored), atol=1e-3)


def test_the_map_comes_before_transform_and_rotation():
    affine = ((1.0, 0.1), (0.0, 1.2))
    layout = ScanLayout("flip_x", 90.0, affine)
    (found,) = layout.applied([PLACES])
    y, x = centred(PLACES).T
    y, x = y + 0.1 * x, 1.2 * x  # skewed and stretched
    x = -x  # flipped
    y, x = -x, y  # by a quarter, from x to −y
    np.testing.assert_allclose(centred(found).T, [y, x], atol=1e-12)
    np.testing.assert_allclose(found.mean(0), PLACES.mean(0))


LAYOUT = {"rotation_deg": 33.0, "scan_transform": "transpose"}
LAYOUT |= {"scan_affine": [[1.02, 0.0], [0.03, 0.97]]}


def native(folder):
    path = folder / "scan.h5"
    grid = jp.Grid((6, 6), 0.5, 80.0)
    write_native(path, jp.Dataset(COUNTS, PLACES, grid, bad_data="keep"))
    return path, {}


def cxi(folder):
    from jaxptycho.io.cxi import export_cxi

    data = jp.Dataset(COUNTS, PLACES, jp.Grid((6, 6), 0.5, 80.0), bad_data="keep")
    export_cxi(folder / "scan.cxi", jp.first_model(data, probe="mean_pattern"), data)
    return folder / "scan.cxi", {}


def camera(folder):
    return cameras.write_mib(folder / "scan.mib", COUNTS.reshape(3, 4, 6, 6)), GIVEN


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("write", [native, cxi, camera])
def test_every_kind_of_file_is_laid_out(write, tmp_path):
    path, known = write(tmp_path)
    known = known | {"bad_data": "keep"}
    before = jp.read(path, **known).positions[0]
    after = jp.read(path, **known, **LAYOUT).positions[0]
    matrix = ScanLayout("transpose", 33.0, LAYOUT["scan_affine"]).matrix
    np.testing.assert_allclose(centred(after), centred(before) @ matrix.T, atol=1e-9)


def test_a_series_is_rotated_about_its_axis(tmp_path):
    tilts = np.array([-0.2, 0.2])
    places = np.stack([PLACES, PLACES + 5.0])
    grid = jp.Grid((6, 6), 0.5, 80.0)
    data = jp.Dataset(np.stack([COUNTS] * 2), places, grid, tilts=tilts, bad_data="keep")
    write_native(tmp_path / "tilts.h5", data)
    found = jp.read(tmp_path / "tilts.h5", rotation_deg=20.0, bad_data="keep").positions
    matrix = ScanLayout(rotation_deg=20.0).matrix
    for view in range(2):
        np.testing.assert_allclose(found[view], places[view] @ matrix.T)


def test_a_converted_file_holds_the_layout(tmp_path, plain):
    from jaxptycho.io.convert import convert
    from jaxptycho.io.datasets import reading_of

    known = GIVEN | LAYOUT | {"scan_order": "serpentine"}
    convert(reading_of(plain, **known), tmp_path / "scan.h5", known)
    found = jp.read(tmp_path / "scan.h5").positions[0]
    np.testing.assert_allclose(found, jp.read(plain, **known).positions[0])
    with pytest.raises(ValueError, match="threshold came, and a conversion keeps the counts"):
        convert(reading_of(plain), tmp_path / "other.h5", GIVEN | {"threshold": 2.0})


def test_listed_positions_and_a_raster_contradict_each_other(tmp_path):
    path = cameras.write_ptyd(tmp_path / "a.ptyd", COUNTS, PLACES)
    known = {"bad_data": "keep"}
    np.testing.assert_allclose(
        centred(jp.read(path, **known, scan_order="file").positions[0]), centred(PLACES), atol=1e-6
    )
    raster_given = {"scan_shape": (3, 4), "step_angstrom": 1e5, "scan_order": "serpentine"}
    with pytest.raises(ValueError, match="lists its positions, and scan_shape, step_angstrom, sc"):
        jp.read(path, **known, **raster_given)
    taken = jp.read(path, **known, **raster_given, ignore_header=True)
    expected = raster_positions((3, 4), 1e5, "serpentine")
    np.testing.assert_allclose(taken.positions[0], expected)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"scan_order": "file"}, "lists no positions"),
        ({"scan_order": "spiral"}, "known are raster, serpentine, file"),
        ({"scan_affine": [[1, 1], [1, 1]]}, "an invertible matrix"),
        ({"rotation_deg": np.nan}, "a number of degrees"),
        ({"scan_transform": "mirror"}, "known are none, flip_y"),
    ],
)
def test_layouts_that_are_none_are_refused(given, words, plain):
    with pytest.raises(ValueError, match=words):
        jp.read(plain, **GIVEN, **given)
