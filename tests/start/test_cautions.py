"""Cautions: units and conventions that the data contradict, and silence on sound data."""

import warnings

import h5py
import numpy as np
import pytest
from scans import ABOUT, GRID, STEP, blobs

import jaxptycho as jp
from jaxptycho.io.native import write_native
from jaxptycho.jobs.describe import describe
from jaxptycho.start.cautions import cautions


@pytest.fixture(scope="module")
def sound():
    return blobs()


def keys(data, **about):
    return [caution.key for caution in cautions(data, about)]


def dataset(counts, places, **changes):
    return jp.Dataset(
        **({"counts": counts, "positions": places, "grid": GRID, "about": ABOUT} | changes)
    )


def test_sound_data_give_no_caution(sound):
    assert keys(dataset(*sound)) == []


@pytest.mark.parametrize("dose", [5.0, 60.0, 500.0, 1e5])
@pytest.mark.parametrize("strength", [0.02, 1.5])
def test_no_dose_and_no_specimen_gives_a_false_caution(dose, strength):
    counts, places = blobs(dose=dose, strength=strength, seed=5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of empty patterns at the lowest dose
        data = dataset(counts, places)
    assert keys(data) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "known"),
    {
        "siemens_star_xray.h5": {},
        "petra3_near_field_xray.cxi": {"near_field": True, "focus_to_sample_angstrom": 3.65e7},
        "wse2_mos2_bilayer_80kV_1e5.h5": {},
    }.items(),
)
def test_measured_and_simulated_data_give_no_caution(name, known, data_dir):
    assert keys(jp.read(data_dir(name), **known)) == []


@pytest.mark.slow
def test_rotavirus_gives_the_one_true_caution(data_dir):
    (caution,) = cautions(jp.read(data_dir("rotavirus_300kV_64x64.h5")))
    assert caution.key == "data.counts_per_electron"
    assert keys(jp.read(data_dir("rotavirus_300kV_64x64.h5"), counts_per_electron=5.2)) == []


UNITS = {"nm": 0.1, "um": 1e-4, "10 nm": 0.01, "pixel": 1 / GRID.pixel[0], "pm": 100.0}


@pytest.mark.parametrize("unit", UNITS)
def test_positions_in_another_unit(unit, sound):
    counts, places = sound
    assert "data.position_unit" in keys(dataset(counts, places * UNITS[unit]))


def test_positions_in_metres_are_refused(sound):
    counts, places = sound
    with pytest.raises(ValueError, match=r"extends over 2.31e-09 Å.*in m\?.*position_unit"):
        dataset(counts, places * 1e-10)


@pytest.mark.parametrize("unit", ["nm", "um", "pixel", "m"])
def test_the_unit_of_positions_is_a_key(unit, sound, tmp_path):
    counts, places = sound
    length = {"nm": 10.0, "um": 1e4, "pixel": GRID.pixel[0], "m": 1e10}[unit]
    file = tmp_path / "x.h5"
    write_native(file, dataset(counts, places))
    with h5py.File(file, "r+") as opened:
        opened["positions"][...] = places / length
    read = jp.read(file, position_unit=unit)
    np.testing.assert_allclose(read.positions[0], places, rtol=1e-12)
    assert keys(read) == []


def test_positions_where_the_probe_is_unknown(sound):
    counts, places = sound
    assert keys(dataset(counts, places, about={})) == []
    assert keys(dataset(counts, places * 1e-3, about={})) == ["data.position_unit"]
    assert keys(dataset(counts, places * 10, about={})) == ["data.position_unit"]


SEMIANGLES = [12.0, 50.0, 1000 * 0.5]


@pytest.mark.parametrize("given", SEMIANGLES)
def test_a_semiangle_that_differs_from_the_disc(given, sound):
    data = dataset(*sound)
    assert "probe.semiangle_mrad" in keys(data, semiangle_mrad=given)
    assert "probe.semiangle_mrad" in keys(dataset(*sound, about=ABOUT | {"semiangle_mrad": given}))
    assert "probe.semiangle_mrad" not in keys(data, semiangle_mrad=25.5)


@pytest.mark.parametrize("given", [0.0214, 0.025, 0.1, 1432.0])
def test_semiangles_in_radians_or_degrees_are_refused(given, sound, tmp_path):
    write_native(tmp_path / "x.h5", dataset(*sound))
    with pytest.raises(ValueError, match="radians"):
        jp.read(tmp_path / "x.h5", semiangle_mrad=given)
    with h5py.File(tmp_path / "x.h5", "r+") as file:
        file.attrs["semiangle_mrad"] = given
    with pytest.raises(ValueError, match=r"x.h5: semiangle_mrad = .*radians"):
        jp.read(tmp_path / "x.h5")


@pytest.mark.parametrize("volts", [80_000.0, 300_000.0, 5e-5])
def test_voltages_in_volt_are_refused(volts, sound, tmp_path):
    with pytest.raises(ValueError, match=r"voltage_kv = .*is it in V\?"):
        jp.Grid((8, 8), 0.3, volts)
    write_native(tmp_path / "x.h5", dataset(*sound))
    with h5py.File(tmp_path / "x.h5", "r+") as file:
        file.attrs["voltage_kv"] = volts
    with pytest.raises(ValueError, match=r"x.h5: voltage_kv = .*is it in V\?"):
        jp.read(tmp_path / "x.h5")


def test_patterns_with_zero_frequency_in_the_corner(sound, tmp_path):
    counts, places = sound
    corner = np.fft.ifftshift(counts, axes=(1, 2))
    data = dataset(corner, places)
    assert "data.zero_frequency" in keys(data)
    write_native(tmp_path / "x.h5", data)
    right = jp.read(tmp_path / "x.h5", zero_frequency="corner")
    np.testing.assert_array_equal(right.mean_pattern(), dataset(counts, places).mean_pattern())
    assert keys(right) == []


def test_a_wide_disc_in_the_corner():
    k = np.fft.fftfreq(48, 0.3)
    disc = (np.hypot(k[:, None], k) < 0.9 * k.max()) * 50.0
    counts = np.random.default_rng(0).poisson(disc, (16, 48, 48)).astype(np.uint16)
    places = np.stack(np.meshgrid(range(4), range(4)), -1).reshape(-1, 2) * 2.0
    semi = {"semiangle_mrad": 1e3 * 0.9 * k.max() * GRID.wavelength}
    assert keys(dataset(counts, places, about=semi)) == ["data.zero_frequency"]
    shown = np.fft.fftshift(counts, axes=(1, 2))
    assert keys(dataset(shown, places, about=semi)) == []


def test_a_probe_guess_in_the_corner(sound):
    y, x = np.mgrid[:48, :48] - 24
    probe = np.exp(-(y**2 + x**2) / 30.0 + 0.1j * y)
    assert keys(dataset(*sound, probe_guess=probe)) == []
    assert keys(dataset(*sound, probe_guess=np.fft.ifftshift(probe))) == ["probe.start"]
    modes = np.stack([probe, 0.1 * y * probe])
    assert keys(dataset(*sound, probe_guess=np.fft.ifftshift(modes, axes=(1, 2)))) == [
        "probe.start"
    ]


def test_a_mask_where_true_means_bad(sound):
    counts, places = sound
    y, x = np.mgrid[:48, :48] - 24
    stop = np.hypot(y, x) < 4
    assert keys(dataset(counts, places, mask=~stop)) == []
    assert "data.mask" in keys(dataset(counts, places, mask=stop))
    with pytest.warns(UserWarning, match="hold no counts"):
        data = dataset(counts, places, mask=np.hypot(y, x) > 20)
    assert "data.mask" in keys(data)


def test_tilts_in_radians_in_a_file_and_in_degrees_in_a_dataset(sound, tmp_path):
    scans = [blobs(side=4, seed=seed) for seed in range(7)]
    counts, places = (np.stack(part) for part in zip(*scans, strict=True))
    places = places - places.mean((0, 1))
    degrees = np.arange(-60, 61, 20.0)
    right = dataset(counts, places, tilts=np.deg2rad(degrees))
    assert keys(right) == []
    write_native(tmp_path / "x.h5", right)
    with h5py.File(tmp_path / "x.h5", "r+") as file:
        file["tilt_deg"][...] = np.deg2rad(degrees)
    assert keys(jp.read(tmp_path / "x.h5")) == ["tilt_deg"]
    with pytest.raises(ValueError, match="requires radians"):
        dataset(counts, places, tilts=degrees)
    assert keys(dataset(counts, places, tilts=degrees / 15)) == ["tilts"]


def integrating(counts, gain, spread, seed=1):
    """Counts of a camera that gives `gain` counts an electron, scattered by `spread` of it."""
    rng = np.random.default_rng(seed)
    return counts * gain + np.sqrt(counts) * gain * spread * rng.normal(size=counts.shape)


@pytest.mark.parametrize("gain", [3, 37.5, 1e-3])
def test_counts_that_are_multiples_of_an_electron(gain, sound):
    counts, places = sound
    data = dataset((counts * gain).astype(np.float32 if gain % 1 else np.uint32), places)
    assert keys(data) == ["data.counts_per_electron"]
    assert f"makes {gain:.3g} counts" in str(cautions(data)[0])


@pytest.mark.parametrize("gain", [5.0, 8.0, 100.0])
def test_counts_of_an_integrating_camera(gain):
    counts, places = blobs(seed=2)
    data = dataset(np.rint(np.maximum(integrating(counts, gain, 0.3), 0)).astype(np.int32), places)
    assert keys(data) == ["data.counts_per_electron"]


def test_normalised_patterns(sound):
    counts, places = sound
    sums = counts.sum((1, 2), keepdims=True)
    assert keys(dataset(counts / sums, places)) == ["data.counts_per_electron"]


def test_the_counts_of_an_electron_are_a_key(sound, tmp_path):
    counts, places = sound
    write_native(tmp_path / "x.h5", dataset(counts * np.uint16(3), places))
    read = jp.read(tmp_path / "x.h5", counts_per_electron=3.0)
    np.testing.assert_allclose(read.dose(), counts.sum((1, 2)), rtol=1e-6)
    assert keys(read) == []


def clipped(mean, ceiling, kind):
    """A scan whose disc has about `mean` counts a pixel, of which none is above `ceiling`."""
    counts, places = blobs(dose=mean * 232, seed=4)
    return np.minimum(counts, ceiling).astype(kind), places


@pytest.mark.parametrize("ceiling", [63, 255, 4095])
@pytest.mark.parametrize("part", [0.8, 3.0])
def test_saturated_counts(ceiling, part):
    data = dataset(*clipped(part * ceiling, ceiling, np.uint16))
    (caution,) = [c for c in cautions(data) if c.key == "data.mask"]
    assert f"are at {ceiling}, where the camera or the type" in str(caution)


def test_a_saturated_disc_is_refused_and_a_saturated_spot_masked():
    with pytest.raises(ValueError, match=r"the camera is saturated: .* most of the bright field"):
        dataset(*clipped(700, 255, np.uint8))
    counts, places = clipped(120, 255, np.uint8)
    counts[:, 20:22, 23:26] = 255
    with pytest.warns(UserWarning, match="6 pixels .* saturated in most patterns"):
        data = dataset(counts, places)
    assert (~data.mask).sum() == 6


@pytest.mark.parametrize("kilovolt", [60, 80, 300])
def test_electrons_that_a_cxi_file_does_not_name(kilovolt, tmp_path):
    from scipy.constants import e

    from jaxptycho.io.cxi import export_cxi

    counts, places = blobs(side=4)
    data = dataset(counts, places)
    file = tmp_path / "x.cxi"
    export_cxi(file, jp.first_model(data), data)
    with h5py.File(file, "r+") as opened:
        source = opened["entry_1/instrument_1/source_1"]
        del source["probe"], source["wavelength"]
        source["energy"][...] = 1e3 * e * kilovolt
    found = cautions(jp.read(file))
    assert found[0].key == "data.voltage_kv"
    assert f"data.voltage_kv = {kilovolt}" in str(found[0])
    assert "data.voltage_kv" not in keys(jp.read(file, voltage_kv=float(kilovolt)))


def test_the_first_model_and_inspect_report_cautions(sound, tmp_path):
    counts, places = sound
    data = dataset(counts, places * 0.1)
    with pytest.warns(UserWarning, match=r"are the positions in Å\? .*data.position_unit"):
        jp.first_model(data)
    with pytest.warns(UserWarning, match=r"bright-field disc measures 2\d.* mrad"):
        jp.first_model(dataset(*sound), semiangle=0.05)
    write_native(tmp_path / "x.h5", data)
    assert "data.position_unit" in describe(tmp_path / "x.h5")["caution 1"]


def test_unequal_detector_steps_give_the_right_semiangle():
    grid = jp.Grid((64, 32), 0.3, 80.0)
    ky, kx = (np.fft.fftshift(np.fft.fftfreq(n, 0.3)) for n in (64, 32))
    disc = 100.0 * (np.hypot(ky[:, None], kx) * grid.wavelength < 0.025)
    counts = np.random.default_rng(0).poisson(np.tile(disc, (9, 1, 1))).astype(np.uint16)
    places = np.stack(np.meshgrid(range(3), range(3)), -1).reshape(-1, 2) * STEP
    data = jp.Dataset(counts, places, grid, about=ABOUT)
    assert "probe.semiangle_mrad" not in keys(data)
    assert "probe.semiangle_mrad" in keys(data, semiangle_mrad=35.0)


NUMBERS = {
    "clipped at no power of two": (lambda c: np.minimum(c, 60), "data.mask"),
    "one bit": (lambda c: c > 50, "data.mask"),
    "amplitudes": (lambda c: np.sqrt(c), "data.file"),
    "normalised amplitudes": (lambda c: np.sqrt(c / c.max()), "data.file"),
    "logarithms": (lambda c: np.log1p(c), "data.file"),
    "a pedestal": (lambda c: c + 20, "data.dark_file"),
    "a pedestal of few counts": (lambda c: c // 10 + 3, "data.dark_file"),
    "a dark current in ADU": (
        lambda c: np.rint(100.0 * c + np.random.default_rng(1).normal(1000, 30, c.shape)),
        "data.dark_file",
    ),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_that_are_no_counts(name, sound):
    change, key = NUMBERS[name]
    assert key in keys(dataset(change(sound[0]), sound[1]))


@pytest.mark.parametrize("strength", [0.02, 0.4, 1.5])
@pytest.mark.parametrize("gain", [1.0, 37.0])
def test_noise_of_counts_is_no_other_number(strength, gain):
    counts, places = blobs(strength=strength, seed=8)
    readout = np.random.default_rng(2).normal(0, 0.1 * gain, counts.shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of negative counts
        data = dataset(np.rint(gain * counts + readout), places)
    assert set(keys(data)) <= {"data.counts_per_electron"}


def test_counts_of_an_electron_below_the_readout_are_unknown(sound):
    counts, places = sound
    readout = np.random.default_rng(1).normal(0, 20, counts.shape)
    with pytest.warns(UserWarning, match="negative counts"):
        data = dataset(37.0 * counts + readout, places)
    assert keys(data) == []


@pytest.mark.parametrize(("axis", "name"), [(1, "y"), (2, "x")])
def test_one_axis_shifted(axis, name, sound):
    counts, places = sound
    (caution,) = cautions(dataset(np.fft.fftshift(counts, axis), places))
    assert caution.key == "data.zero_frequency"
    assert f"ends of their {name} axis" in caution.text


ARRANGEMENTS = {
    "one position": (lambda p: p * 0, "scan.shape"),
    "a line": (lambda p: p * [1, 0], "scan.shape"),
    "an oblique line": (lambda p: p[:, :1] * [1.0, 0.4], "scan.shape"),
    "a stage that stopped": (lambda p: p[np.minimum(np.arange(len(p)), 100)], "data.frames"),
    "two scans": (lambda p: np.repeat(p[::2], 2, axis=0), "data.frames"),
}


@pytest.mark.parametrize("name", ARRANGEMENTS)
def test_positions_that_show_no_area_or_stand_still(name, sound):
    change, key = ARRANGEMENTS[name]
    assert key in keys(dataset(sound[0], change(sound[1])))


def test_a_defocus_in_another_unit_is_not_blamed_on_the_positions(sound):
    data = dataset(*sound)
    assert keys(data, defocus_angstrom=1.2e6) == ["probe.defocus_angstrom"]
    (caution,) = cautions(data, {"defocus_angstrom": 1.2e-8})
    assert "probe.defocus_angstrom" in caution.text


def test_impossible_pixels_and_masks_of_weights_are_refused(sound):
    counts, places = sound
    with pytest.raises(ValueError, match=r"half of the wavelength.*in nm or m"):
        dataset(counts, places, grid=jp.Grid((48, 48), 0.3e-10, 80.0))
    with pytest.raises(ValueError, match=r"the mask holds 0.5"):
        dataset(counts, places, mask=np.full((48, 48), 0.5))


OF_ONE_VIEW = {
    "zero frequency": (lambda c, p: (np.fft.fftshift(c, (1, 2)), p), "data.zero_frequency"),
    "unit of positions": (lambda c, p: (c, 0.1 * p), "data.position_unit"),
}


@pytest.mark.parametrize("name", OF_ONE_VIEW)
def test_a_view_unlike_the_others_is_named(name):
    change, key = OF_ONE_VIEW[name]
    scans = [blobs(side=6, seed=seed) for seed in range(3)]
    scans = [(counts, places - places.mean(0)) for counts, places in scans]
    tilts = np.deg2rad([-20.0, 0.0, 20.0])

    def series(views):
        counts, places = zip(*views, strict=True)
        return dataset(list(counts), list(places), tilts=tilts)

    assert keys(series(scans)) == []
    (caution,) = cautions(series([*scans[:2], change(*scans[2])]))
    assert caution.key == key
    assert caution.text.startswith("view 2: ")
