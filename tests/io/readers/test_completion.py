"""From a reading and given values to a dataset: what is missing, what contradicts, what is found."""

import cameras
import numpy as np
import pytest

import jaxptycho as jp
from jaxptycho.io.datasets import read, reading_of
from jaxptycho.io.readers.completion import completed, likely_shape
from jaxptycho.io.readers.detector import disc_radius, with_detector
from jaxptycho.physics.grids import electron_wavelength

ALL = {"scan_shape": (3, 4), "step_angstrom": 0.4, "voltage_kv": 300, "dk_inverse_angstrom": 0.02}


def disc_counts(radius=9.0, centre=(20, 18), frame=(40, 36), scan=(3, 4), dose=40.0):
    """Patterns with a bright disc."""
    y, x = np.mgrid[: frame[0], : frame[1]]
    disc = np.hypot(y - centre[0], x - centre[1]) <= radius
    rng = np.random.default_rng(5)
    return rng.poisson(dose * disc + 0.2, (*scan, *frame)).astype(np.uint16)


@pytest.fixture(scope="module")
def merlin(tmp_path_factory):
    """A file that says nothing but its exposure."""
    return cameras.write_mib(tmp_path_factory.mktemp("a") / "scan.mib", disc_counts())


@pytest.fixture(scope="module")
def blo(tmp_path_factory):
    """A file that says all but the semiangle."""
    counts = disc_counts(frame=(40, 40), dose=20).astype(np.uint8)
    return cameras.write_blo(tmp_path_factory.mktemp("b") / "scan.blo", counts)


def test_positions_are_a_raster_and_patterns_lie_at_theirs(merlin):
    data = read(merlin, **ALL | {"step_angstrom": (0.4, 0.5)})
    shot = 6  # line 1, column 2
    np.testing.assert_allclose(data.positions[0][shot], (0.4, 1.0))
    shifted = np.fft.fftshift(data.patterns(0, [shot]), axes=(1, 2))[0]
    np.testing.assert_array_equal(shifted, disc_counts()[1, 2])
    assert data.about["exposure_s"] == 1e-3
    np.testing.assert_allclose(data.grid.dk, 0.02)


def test_all_that_is_missing_is_named_at_once(merlin):
    with pytest.raises(ValueError, match="does not give") as caught:
        jp.read(merlin)
    text = str(caught.value)
    call = "scan_shape=(3, 4), step_angstrom=0.4, voltage_kv=300, semiangle_mrad=21"
    assert f'jp.read("scan.mib", {call})' in text
    assert "scan.shape, scan.step_angstrom, data.voltage_kv, probe.semiangle_mrad" in text
    assert "\n" not in text


@pytest.mark.parametrize("absent", ALL)
def test_one_that_is_missing_is_named(absent, merlin):
    given = {name: value for name, value in ALL.items() if name != absent}
    named = "semiangle_mrad" if absent == "dk_inverse_angstrom" else absent
    with pytest.raises(ValueError, match=rf"does not give {named}\b.*jp.read\(") as caught:
        read(merlin, **given)
    assert str(caught.value).count("=") == 1


@pytest.mark.parametrize("radius", [5.0, 9.0, 14.0])
def test_the_detector_step_is_measured_from_the_disc(radius, tmp_path):
    path = cameras.write_mib(tmp_path / "a.mib", disc_counts(radius))
    given = ALL | {"semiangle_mrad": 21.0}
    del given["dk_inverse_angstrom"]
    reading = with_detector(completed(reading_of(path), given))
    expected = 21e-3 / electron_wavelength(300.0) / radius
    value = reading["dk_inverse_angstrom"]
    np.testing.assert_allclose(value.value, expected, rtol=0.3 / radius)
    assert value.origin == "measured"
    np.testing.assert_allclose(read(path, **given).grid.dk, value.value)


def test_hot_pixels_do_not_outshine_the_disc(tmp_path):
    counts = disc_counts(scan=(4, 8), dose=0.5)
    counts[..., 5, 7] = 3000
    counts[..., 30, 9] = np.random.default_rng(0).poisson(400, (4, 8))
    assert disc_radius(reading_of(cameras.write_mib(tmp_path / "a.mib", counts))) == (
        pytest.approx(9.0, abs=0.5)
    )


def test_no_disc_measures_nothing(tmp_path):
    flat = np.random.default_rng(1).poisson(3, (3, 4, 40, 36)).astype(np.uint16)
    path = cameras.write_mib(tmp_path / "a.mib", flat)
    assert disc_radius(reading_of(path)) is None
    given = ALL | {"semiangle_mrad": 21.0}
    del given["dk_inverse_angstrom"]
    with pytest.raises(ValueError, match=r"detector_step_mrad \(no disc of the semiangle"):
        read(path, **given)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"voltage_kv": 80}, r"voltage_kv = 200 \(Beam_energy\), and 80 is given"),
        ({"step_angstrom": 1.5}, r"step_angstrom = \(15, 20\) \(SY, SX\), and 1.5 is given"),
        ({"scan_shape": (4, 3)}, r"scan_shape = \(3, 4\) \(NY, NX\), and \(4, 3\) is given"),
        ({"detector_step_mrad": 4.0}, r"detector_step_mrad = 0.4 .* and 4 is given"),
        ({"dk_inverse_angstrom": 0.16}, r"0.015949.* and \(0.16, 0.16\) is given"),
    ],
)
def test_what_contradicts_the_header_is_refused_with_both_numbers(given, words, blo):
    with pytest.raises(ValueError, match=words) as caught:
        read(blo, **given)
    assert "scan.blo" in str(caught.value)
    if "scan_shape" not in given:
        read(blo, ignore_header=True, **given)


def test_a_calibration_near_the_header_is_taken(blo):
    data = read(blo, step_angstrom=(14.0, 21.0), detector_step_mrad=0.42)
    np.testing.assert_allclose(data.positions[0].max(0), (28, 63))
    np.testing.assert_allclose(data.grid.dk, 0.42e-3 / electron_wavelength(200.0))
    assert data.about["scan_rotation_deg"] == 30


def test_the_header_is_enough(blo):
    data = read(blo)
    assert data.grid.voltage_kv == 200
    np.testing.assert_allclose(data.grid.dk, 0.4e-3 / electron_wavelength(200.0))


def test_frames_of_one_of_two_scans(tmp_path):
    both = disc_counts(scan=(6, 4))
    path = cameras.write_mib(tmp_path / "a.mib", both)
    with pytest.raises(ValueError, match=r"24 patterns.*2 scans in one file\? name one"):
        read(path, **ALL)
    data = read(path, **ALL, frames=(12, 24))
    np.testing.assert_array_equal(data.counts[0][:], both[3:].reshape(-1, 40, 36))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"scan_shape": (5, 3)}, r"12 patterns, and a scan of 5 × 3 has 15; .* such as \(3, 4\)"),
        ({"scan_shape": 12}, "expected two numbers"),
        ({"scan_shape": (3.0, 4.0)}, "expected two numbers"),
        ({"scan_shape": (0, 4)}, "expected two numbers"),
        ({"step_angstrom": -0.4}, "step_angstrom = -0.4; one number above 0"),
        ({"step_angstrom": "0.4"}, "one number above 0"),
        ({"step_angstrom": (1, 2, 3)}, "one number above 0"),
        ({"frames": (4, 40)}, "holds 12 patterns, and frames"),
        ({"voltage_kv": 300e3}, "is it in V"),
        ({"energy_kev": 300}, "did you mean voltage_kv"),
        ({"position_unit": "nm"}, "give scan.step_angstrom"),
        ({"dtype": "<u2"}, "whose format takes none of these options; leave it out"),
        ({"near_field": True}, "near_field is of CXI files"),
        ({"tilt_axis_deg": 3.0}, "gives no tilts"),
    ],
)
def test_mistakes_are_one_sentence(given, words, merlin):
    with pytest.raises(ValueError, match=words) as caught:
        read(merlin, **ALL | given)
    assert "\n" not in str(caught.value)


def test_three_patterns_are_no_scan(tmp_path):
    path = cameras.write_mib(tmp_path / "a.mib", disc_counts(scan=(1, 3)))
    with pytest.raises(ValueError, match=r"a.mib holds 3 patterns, and a scan has at least 4"):
        read(path, **ALL | {"scan_shape": (1, 3)})


def test_values_that_are_not_finite_name_file_and_shot(tmp_path):
    counts = disc_counts().astype(np.float32)
    counts[1, 1:, 3, 3] = np.nan
    np.save(tmp_path / "a.npy", counts)
    with pytest.raises(ValueError, match=r"a.npy: counts of shot 5 are not finite"):
        read(tmp_path / "a.npy", **{k: v for k, v in ALL.items() if k != "scan_shape"})


def test_keys_of_cameras_are_refused_for_datasets(tmp_path, merlin):
    from jaxptycho.io.native import write_native

    write_native(tmp_path / "a.h5", read(merlin, **ALL))
    with pytest.raises(ValueError, match=r"step_angstrom describes the file of a camera"):
        read(tmp_path / "a.h5", step_angstrom=0.3)


def test_zero_frequency_in_the_corner(tmp_path):
    rolled = np.fft.ifftshift(disc_counts(), axes=(2, 3))
    path = cameras.write_mib(tmp_path / "a.mib", rolled)
    given = ALL | {"semiangle_mrad": 21.0}
    del given["dk_inverse_angstrom"]
    data = read(path, zero_frequency="corner", **given)
    np.testing.assert_array_equal(data.counts[0][:], disc_counts().reshape(-1, 40, 36))
    np.testing.assert_allclose(data.grid.dk, 21e-3 / electron_wavelength(300.0) / 9, rtol=0.03)


@pytest.mark.parametrize(("count", "shape"), [(12, (3, 4)), (7, (1, 7)), (65536, (256, 256))])
def test_a_likely_shape_is_nearest_to_a_square(count, shape):
    assert likely_shape(count) == shape
