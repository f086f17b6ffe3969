"""A bright-field disc off the middle of the camera shifts the pattern, and displaces neither probe nor object."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from listeners import Said

import jaxptycho as jp
from jaxptycho.io.native import write_native
from jaxptycho.jobs.build import build_model
from jaxptycho.jobs.describe import check_job
from jaxptycho.jobs.reading import make_job
from jaxptycho.jobs.runner import start
from jaxptycho.jobs.series import series_model
from jaxptycho.parts.detector import Cropped, Descanned, Ideal, Masked, SuperSampled
from jaxptycho.parts.indexed import PerShot, PerView
from jaxptycho.reports.describe import describe_data
from jaxptycho.start.calibration import bright_field_centre
from jaxptycho.start.descan import descan_rows

pytestmark = pytest.mark.usefixtures("quick_to_compile")

N, PIXEL, SEMIANGLE = 48, 0.3, 0.025
GRID = jp.Grid((N, N), PIXEL, 80.0)
ABOUT = {"semiangle_mrad": 25.0, "defocus_angstrom": 120.0}
PLACES = np.stack(np.meshgrid(np.arange(3), np.arange(3), indexing="ij"), -1).reshape(-1, 2) * 1.5
MOVES = [(3, -2), (0.6, 0.0), (-1.3, 2.45), (0.2, -0.3)]
moves = pytest.mark.parametrize("moved", MOVES, ids=str)


def disc(moved=(0, 0), radius=SEMIANGLE, n=N):
    """A disc with a soft edge, its middle `moved` pixels off that of the camera."""
    y, x = (np.arange(n) - n // 2 - m for m in moved)
    step = GRID.wavelength / (n * PIXEL)
    return np.rint(1e4 * np.clip(radius / step - np.hypot(y[:, None], x) + 0.5, 0, 1)).astype(
        np.uint16
    )


def measured(moved=(0, 0), radius=SEMIANGLE, about=ABOUT, **more):
    return jp.Dataset(
        np.tile(disc(moved, radius), (9, 1, 1)), PLACES, GRID, about=dict(about), **more
    )


def middle(model):
    """Middle of the probe (y, x) [Å] from that of its window."""
    wave = np.abs(np.asarray(model.probe.waves[0])) ** 2
    ys = [(np.arange(n) - n // 2) * p for n, p in zip(wave.shape, model.grid.pixel, strict=True)]
    return np.array([(wave.sum(1 - a) * ys[a]).sum() / wave.sum() for a in (0, 1)])


def middle_of_expected(model):
    """Middle of the expected pattern of shot 0 [pixels off that of the camera]."""
    pattern = np.fft.fftshift(np.asarray(jp.predict(model, np.arange(1))[0]))
    return np.array(
        [
            (pattern.sum(1 - a) * (np.arange(n) - n // 2)).sum() / pattern.sum()
            for a, n in enumerate(pattern.shape)
        ]
    )


def shift_of(model):
    """Shift of the pattern that a model has [pixels of the camera]."""
    detector = model.detector
    while not isinstance(detector, Descanned):
        detector = detector.detector
    return np.asarray(detector.shift) * N * PIXEL


@moves
@pytest.mark.parametrize("source", ["optics", "mean_pattern"])
def test_the_probe_stays_in_the_middle(moved, source):
    model = jp.first_model(measured(moved), probe=source)
    assert np.abs(middle(model)).max() < 0.05
    assert np.abs(middle_of_expected(model) - moved).max() < 0.15
    if np.rint(moved).any():
        assert np.allclose(
            shift_of(model), np.rint(moved), atol=1e-4
        )  # whole pixels, the rest is a tilt of the beam
    else:
        assert model.detector == Ideal()


@pytest.mark.parametrize("moved", [(1, 0), (3, -2), (-4, 5)], ids=str)
@pytest.mark.parametrize("source", ["optics", "mean_pattern"])
def test_no_aberration_comes_from_the_offset(moved, source):
    lens = {"aberrations": {"C30": 2e6, "C12a": 40.0}, "probe": source}
    here, there = (jp.first_model(measured(m), **lens).probe.waves for m in ((0, 0), moved))
    overlap = np.abs(np.vdot(here, there)) / np.vdot(here, here).real
    assert overlap > 0.995


def test_a_probe_in_focus_is_not_moved_either():
    model = jp.first_model(measured((3, -2)), defocus=0.0)
    assert np.abs(middle(model)).max() < 0.01
    assert np.abs(middle_of_expected(model) - (3, -2)).max() < 0.1


@pytest.mark.parametrize("moved", [(14, 0), (-15, 14), (0, -17.5)], ids=str)
def test_a_disc_that_the_camera_cuts_keeps_its_middle(moved):
    data = measured(moved)
    assert np.abs(np.array(bright_field_centre(data)) - moved).max() < 0.25
    assert np.abs(middle(jp.first_model(data))).max() < 0.05


def test_a_beam_stop_over_the_disc_does_not_move_its_middle():
    mask = np.ones((N, N), bool)
    mask[20:40, 22:26] = False
    data = measured((2, 0), mask=mask)
    assert np.abs(np.array(bright_field_centre(data)) - (2, 0)).max() < 0.2
    model = jp.first_model(data)
    assert isinstance(model.detector, Masked)
    assert np.abs(shift_of(model) - (2, 0)).max() < 0.2


def test_patterns_without_a_rim_have_no_shift():
    counts = np.random.default_rng(0).poisson(50.0, (9, N, N)).astype(np.uint16)
    even = jp.Dataset(counts + np.uint16(500), PLACES, GRID, about=dict(ABOUT))
    assert bright_field_centre(even) == (0.0, 0.0)
    with pytest.warns(UserWarning, match="bright-field disc"):
        assert jp.first_model(even).detector == Ideal()


def test_a_centred_disc_changes_nothing():
    model = jp.first_model(measured(about=ABOUT))
    assert model.detector == Ideal()
    assert descan_rows(measured()) == {}


@pytest.mark.parametrize(
    "finer",
    [
        pytest.param({"supersample": 3}, marks=pytest.mark.slow),
        pytest.param({"extend": 2}, marks=pytest.mark.slow),
        {"supersample": 3, "extend": 2},
    ],
    ids=str,
)
def test_finer_and_larger_models_shift_the_same_pattern(finer):
    model = jp.first_model(measured((3, -2)), **finer)
    assert np.abs(middle(model)).max() < 0.05
    assert np.abs(middle_of_expected(model) - (3, -2)).max() < 0.15
    assert isinstance(model.detector, SuperSampled if "supersample" in finer else Cropped)


def tilted(waves, pixels):
    ramps = [np.exp(2j * np.pi * np.arange(N) * s / N) for s in pixels]
    return waves * np.multiply.outer(*ramps)


def test_a_guess_in_the_file_keeps_its_place_and_loses_its_tilt():
    guess = np.asarray(jp.first_model(measured()).probe.waves[0])
    for own in (guess, tilted(guess, (3, -2))):  # made without and with the offset in it
        model = jp.first_model(measured((3, -2), probe_guess=own))
        assert np.abs(middle(model) - middle_of(own)).max() < 0.01
        assert np.abs(middle_of_expected(model) - (3, -2)).max() < 0.1


def middle_of(wave):
    power = np.abs(wave) ** 2
    return np.array(
        [(power.sum(1 - a) * (np.arange(N) - N // 2)).sum() / power.sum() * PIXEL for a in (0, 1)]
    )


def test_views_have_a_common_shift_or_each_its_own():
    def two(one, other):
        counts = [np.tile(disc(m), (9, 1, 1)) for m in (one, other)]
        return jp.Dataset(counts, [PLACES, PLACES], GRID, about=dict(ABOUT))

    common = jp.first_model(two((3, -2), (3.4, -2))).detector
    assert np.asarray(common.shift).shape == (2,)
    separate = jp.first_model(two((3, -2), (0, 2)))
    assert isinstance(separate.detector.shift, PerView)
    assert (
        np.abs(np.asarray(separate.detector.shift.values) * N * PIXEL - [(3, -2), (0, 2)]).max()
        < 0.1
    )
    assert np.abs(middle(separate)).max() < 0.05
    words = descan_rows(two((3, -2), (0, 2)))["bright-field disc"]
    assert (
        words
        == "0.0 to 3.0, -2.0 to 2.0 pixels (y, x) off the middle: modelled as a pattern shift, one for each view"
    )


def test_a_plane_follows_the_disc_over_the_scan():
    places = np.stack(np.meshgrid(*[np.arange(12)] * 2, indexing="ij"), -1).reshape(-1, 2) * 1.5
    moves = np.array([3, -2]) + (places / 16.5 - 0.5) @ np.array([[1.2, 0.3], [-0.4, 0.8]])
    data = jp.Dataset(np.stack([disc(m) for m in moves]), places, GRID, about=dict(ABOUT))
    with pytest.warns(UserWarning, match="counts"):  # exact counts vary with the movement alone
        model = jp.first_model(data, descan="plane")
    shift = model.detector.shift
    assert isinstance(shift, PerShot)
    assert np.abs(np.asarray(shift.values) * N * PIXEL - moves).max() < 0.1
    assert "one for each shot" in descan_rows(data, "plane")["bright-field disc"]
    assert np.abs(middle(model)).max() < 0.05


def test_a_tilt_series_shifts_its_patterns():
    counts = np.tile(disc((3, -2)), (3, 9, 1, 1))
    tilts = np.deg2rad([-10.0, 0.0, 10.0])
    data = jp.Dataset(counts, np.stack([PLACES - 1.5] * 3), GRID, tilts=tilts, about=dict(ABOUT))
    volume = {"kind": "volume", "isolated": True, "size_angstrom": [6.0, 6.0, 6.0]}
    model = series_model(make_job({"data": {"file": "x.h5"}, "specimen": volume}), data)
    assert np.abs(shift_of(model) - (3, -2)).max() < 0.1
    assert np.abs(np.asarray(middle(model))).max() < 0.1


def test_a_hologram_has_no_disc():
    data = jp.Dataset(
        np.tile(disc((3, -2)), (9, 1, 1)), PLACES, jp.Grid((N, N), PIXEL, wavelength=0.7)
    )
    model = jp.first_model(data, near_field=100.0)
    assert type(model.detector).__name__ == "NearField"
    with pytest.raises(ValueError, match="hologram"):
        jp.first_model(data, near_field=100.0, descan="shared")


def job(folder, data, **sections):
    file = folder / "data.h5"
    if not file.exists():
        write_native(file, data)
    step = {"kind": "refine", "epochs": 1, "batch": 9, "rates": {"specimen": 1e-3}}
    return make_job({"data": {"file": str(file), "hold_out": 0.0}, "step": [step]} | sections)


@pytest.mark.parametrize("kind", ["pixel", "aberrated"])
@pytest.mark.parametrize("descan", ["auto", "none", "shared", "plane", "shot"])
def test_a_job_says_how_the_offset_is_modelled(tmp_path, kind, descan):
    data = measured((3, -2))
    made = build_model(job(tmp_path, data, probe={"kind": kind}, detector={"descan": descan}), data)
    assert np.abs(middle_of_expected(made) - (3, -2)).max() < 0.15
    assert np.abs(middle_of(np.asarray(wave_of(made)))).max() < 0.05
    if descan == "none":
        assert made.detector == Ideal()
    else:
        assert isinstance(made.detector.shift, PerShot) == (descan in ("plane", "shot"))


def wave_of(model):
    return jnp.fft.fftshift(jnp.fft.ifft2(model.probe.spectrum(GRID)[0]))


def test_shifts_of_shots_are_refined_through_every_wrapper(tmp_path):
    mask = np.ones((N, N), bool)
    mask[0, 0] = False
    counts = np.stack([disc((3 + 0.4 * (i % 2), -2)) for i in range(9)])
    data = jp.Dataset(counts, PLACES, GRID, mask=mask, about=dict(ABOUT))
    made = build_model(job(tmp_path, data, detector={"descan": "shot", "background": 0.1}), data)
    optimiser = jp.per_part({"detector.shift": optax.adam(0.02)})
    batches = jp.batches(data, size=9, epochs=40)
    found, _ = jp.minimise(jp.misfit(jp.amplitude), made, batches, optimiser)
    shifts = np.asarray(found.detector.detector.detector.shift.values) * N * PIXEL
    assert np.ptp(shifts[:, 0]) == pytest.approx(0.4, abs=0.1)
    assert found.detector.detector.counts == made.detector.detector.counts


def test_inspect_validate_and_the_log_say_it(tmp_path):
    data, heard = measured((3, -2)), Said()
    words = "3.0, -2.0 pixels (y, x) off the middle: modelled as a pattern shift"
    assert describe_data(data)["bright-field disc"] == words
    made = job(tmp_path, data)
    assert check_job(made)["bright-field disc"] == words
    start(made, tmp_path / "run", heard)
    assert f"bright-field disc {words}" in heard.lines
    quiet = make_job({"data": {"file": str(tmp_path / "data.h5")}, "detector": {"descan": "none"}})
    assert "bright-field disc" not in check_job(quiet)


@pytest.mark.parametrize("moved", [(3, -2), (-2, 0)], ids=str)
def test_every_slice_is_the_same_as_with_the_disc_in_the_middle(moved):
    """Simulated on the detector's axis; the camera moved; reconstructed from both."""
    size, about = 24, {"semiangle_mrad": 40.0, "defocus_angstrom": 60.0}
    grid = jp.Grid((size, size), PIXEL, 80.0)
    places = (
        np.stack(np.meshgrid(np.arange(4), np.arange(4), indexing="ij"), -1).reshape(-1, 2)
        * 2
        * PIXEL
    )
    step = grid.wavelength * grid.dk[0]
    y = np.arange(size) - size // 2
    flat = np.clip(0.04 / step - np.hypot(y[:, None], y) + 0.5, 0, 1) * 1e6
    blank = jp.Dataset(np.tile(flat, (16, 1, 1)), places, grid, about=about)
    vacuum = jp.first_model(blank, slices=3, thickness=60.0, specimen="phase")
    rng = np.random.default_rng(3)
    true = replace(
        vacuum,
        specimen=replace(
            vacuum.specimen, phase=0.2 * jnp.asarray(rng.normal(size=vacuum.specimen.phase.shape))
        ),
    )
    counts = np.fft.fftshift(np.asarray(jp.predict(true, np.arange(16))), axes=(1, 2))

    def found(by):
        data = jp.Dataset(np.roll(counts, by, (1, 2)), places, grid, about=about)
        first = jp.first_model(data, slices=3, thickness=60.0, specimen="phase")
        overlap = np.abs(np.vdot(first.probe.waves, vacuum.probe.waves))
        assert overlap > 0.999 * np.linalg.norm(first.probe.waves) * np.linalg.norm(
            vacuum.probe.waves
        )
        shift = Descanned(jnp.asarray(np.array(by) * grid.dk)) if any(by) else Ideal()
        first = replace(first, detector=shift, probe=vacuum.probe)
        rates = jp.per_part(specimen=optax.adam(1e-2))
        return jp.minimise(
            jp.misfit(jp.amplitude), first, jp.batches(data, size=16, epochs=5), rates
        )[0].specimen

    centred = np.asarray(found((0, 0)).phase)
    assert np.abs(centred).max() > 0.02
    assert np.allclose(found(moved).phase, centred, atol=1e-2)
