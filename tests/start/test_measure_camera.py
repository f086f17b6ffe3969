"""The camera measured from patterns of a known disc, descan, gain and bad pixels."""

import numpy as np
import pytest
from scipy.special import expit

import jaxptycho as jp
from jaxptycho.data.tiles import tiles_of
from jaxptycho.simulate.camera import Camera
from jaxptycho.start import disc as discs
from jaxptycho.start.camera import measure_camera
from jaxptycho.start.disc_shifts import plane_of_tiles

N, SIDE = 64, 18
GRID = jp.Grid((N, N), 0.3, 80.0)
PLACES = np.stack(np.meshgrid(*[np.arange(SIDE)] * 2, indexing="ij"), -1).reshape(-1, 2) * 0.5
UNITS = PLACES / np.ptp(PLACES, axis=0) - 0.5
CENTRE, RADIUS, ELLIPSE, EDGE = np.array([2.3, -1.7]), 15.3, (0.02, -0.01), 0.4
SLOPES = np.array([[0.9, -0.4], [0.3, 1.2]])
COUNTING = Camera()
TRUE = np.array([*CENTRE, RADIUS, *ELLIPSE, np.log(EDGE)])


def rim(shift=(0, 0), inside=1.0, outside=0.02):
    """Disc of a linear slope inside, displaced by `shift`."""
    y, x = np.meshgrid(*[np.arange(N) - N // 2] * 2, indexing="ij")
    dy, dx = y - CENTRE[0] - shift[0], x - CENTRE[1] - shift[1]
    rho, angle = np.hypot(dy, dx), np.arctan2(dy, dx)
    edge = RADIUS * (1 + ELLIPSE[0] * np.cos(2 * angle) + ELLIPSE[1] * np.sin(2 * angle))
    f = expit((edge - rho) / EDGE)
    return inside * (1 + 0.1 * dy / RADIUS) * f + outside * (1 - f)


def scan(seed, electrons=1.0, slopes=SLOPES, camera=COUNTING, spoil=None):
    """Dataset of `electrons` per pixel of the disc."""
    rng = np.random.default_rng(seed)
    expected = electrons * np.stack([rim(shift) for shift in UNITS @ slopes.T])
    counts = camera.recorded(expected, 1.0, rng)
    if spoil is not None:
        spoil(counts, rng)
    return jp.Dataset(counts, PLACES, GRID)


def test_a_disc_without_noise_is_found_exactly():
    disc = discs.fit_disc(1e6 * rim())
    found = discs.shape_of(disc)
    assert np.abs(found - TRUE).max() < 2e-3
    assert disc.arc == 1
    assert disc.ellipticity == pytest.approx(np.hypot(*ELLIPSE), abs=1e-3)


def test_derivatives_of_the_rim():
    ring = discs.ring_of(rim(), None, TRUE)
    shifts = np.array([[0.0, 0.0], [0.3, -0.2]])
    _, slopes = discs.rim_at(ring, TRUE, shifts)
    for i in range(discs.SHAPE):
        step = np.zeros(discs.SHAPE)
        step[i] = 1e-6
        above, below = (discs.rim_at(ring, TRUE + s, shifts)[0] for s in (step, -step))
        np.testing.assert_allclose(slopes[..., i], (above - below) / 2e-6, atol=2e-7)


def test_errors_are_those_of_repeated_measurements():
    rng = np.random.default_rng(5)
    fits = [discs.fit_disc(rng.poisson(20 * rim()).astype(float)) for _ in range(60)]
    scatter = np.std([discs.shape_of(disc) for disc in fits], axis=0)
    errors = np.median([disc.errors for disc in fits], axis=0)
    bounds = np.median([disc.bounds for disc in fits], axis=0)
    assert (np.abs(np.log(errors / scatter))[:5] < np.log(1.5)).all()
    assert (scatter[:2] < 1.4 * bounds[:2]).all()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("electrons", [0.05, 4.0])
def test_disc_and_descan_within_their_errors(seed, electrons):
    camera = measure_camera(scan(seed, electrons))
    rows = camera.rows()
    for i, name in enumerate("yx"):
        centre = rows[f"disc_centre_{name}_pixels"]
        assert abs(centre.value - CENTRE[i]) < 4 * centre.error
        for j, along in enumerate("yx"):
            descan = rows[f"descan_{name}_along_{along}_pixels"]
            assert abs(descan.value - SLOPES[i, j]) < 4 * descan.error
    radius = rows["disc_radius_pixels"]
    assert abs(radius.value - RADIUS) < 4 * radius.error
    assert set(camera.bounds()) <= set(rows)
    if electrons > 1:
        assert np.abs(camera.shifts - UNITS @ SLOPES.T).max() < 0.1
        assert rows["semiangle_mrad"].value == pytest.approx(
            1e3 * RADIUS * GRID.wavelength * GRID.dk[0], rel=5e-3
        )


@pytest.mark.parametrize(("gain", "spread"), [(None, 0.0), (3.0, 0.0), (6.0, 0.6)])
def test_counts_of_an_electron(gain, spread):
    camera = measure_camera(scan(3, 0.3, camera=Camera(gain=gain, spread=spread)))
    rows = camera.rows()
    assert rows["counts_per_electron"].value == pytest.approx(gain or 1.0, rel=0.12)
    electrons = 0.3 * rim().sum()
    assert rows["electrons_per_pattern"].value == pytest.approx(electrons, rel=0.12)
    assert rows["dose_per_square_angstrom"].value == pytest.approx(electrons / 0.25, rel=0.12)
    assert rows["event_spread_pixels"].value == pytest.approx(spread, abs=0.15)


@pytest.mark.parametrize("seed", range(2))
def test_every_odd_pixel_and_no_other(seed):
    weak, strong, dead = (30, 25), (38, 33), (34, 38)

    def spoil(counts, rng):
        counts[:, *weak] = counts[:, *weak] // 2
        counts[:, *strong] = 2 * counts[:, *strong]
        counts[:, *dead] = 0

    with pytest.warns(UserWarning, match="dead"):  # masked by the dataset
        data = scan(seed, 6.0, spoil=spoil)
    camera = measure_camera(data)
    found = {what.split(",")[0]: np.argwhere(pixels) for what, pixels in camera.bad_pixels.items()}
    assert sorted(found) == ["strong", "weak"]
    assert found["strong"].tolist() == [list(strong)]
    assert found["weak"].tolist() == [list(weak)]
    assert any("weak" in words for words in camera.warnings)


def test_patterns_without_a_disc_still_have_a_dose():
    counts = np.random.default_rng(0).poisson(50.0, (SIDE**2, N, N)).astype(np.uint16)
    camera = measure_camera(jp.Dataset(counts, PLACES, GRID))
    rows = camera.rows()
    assert camera.disc is None
    assert rows["counts_per_pattern"].value == pytest.approx(50 * N**2, rel=0.01)
    assert rows["counts_per_electron"].value == pytest.approx(1, rel=0.05)
    assert not any(name.startswith(("disc", "descan", "semiangle")) for name in rows)
    assert any("no bright-field disc" in words for words in camera.warnings)


def test_a_disc_that_the_detector_cuts():
    cut = jp.Grid((N - 28, N), (0.3 * N / (N - 28), 0.3), 80.0)
    counts = scan(1, 5.0, slopes=np.zeros((2, 2))).counts[0][:, 28:]
    camera = measure_camera(jp.Dataset(counts, PLACES, cut))
    y, x = camera.disc.centre
    assert np.hypot(y + 14 - CENTRE[0], x - CENTRE[1]) < 0.1
    assert any("cut" in words for words in camera.warnings)


def test_too_few_patterns_for_a_descan():
    data = jp.Dataset(scan(0, 20.0).counts[0][:9], PLACES[:9], GRID)
    rows = measure_camera(data).rows()
    assert "disc_radius_pixels" in rows
    assert not any(name.startswith("descan") for name in rows)


def test_readout_noise_is_no_electron():
    rng = np.random.default_rng(2)
    counts = 100.0 * rng.poisson(np.tile(rim(), (SIDE**2, 1, 1))) + rng.normal(size=(SIDE**2, N, N))
    with pytest.warns(UserWarning, match="negative"):
        data = jp.Dataset(counts.astype(np.float32), PLACES, GRID)
    assert measure_camera(data).rows()["counts_per_electron"].value == pytest.approx(100, rel=0.1)


@pytest.mark.parametrize("value", [7, 0.5])
def test_counts_without_noise_have_no_gain(value):
    kind = np.uint16 if value == 7 else np.float32
    camera = measure_camera(jp.Dataset(np.full((SIDE**2, N, N), value, kind), PLACES, GRID))
    assert set(camera.rows()) == {"counts_per_pattern"}
    assert not camera.bad_pixels


def test_a_handful_of_electrons_shows_no_disc():
    with pytest.warns(UserWarning, match="hold no counts"):
        data = scan(4, 2e-4)
    assert measure_camera(data).disc is None


def test_tiles_hold_equal_parts_of_any_scan():
    tiles = tiles_of(np.random.default_rng(1).uniform(size=(500, 2)))
    assert len(np.unique(tiles)) == 25
    assert np.ptp(np.bincount(tiles)) <= 1
    assert (tiles_of(PLACES[:5]) == 0).all()


def test_a_particle_over_several_tiles_widens_the_error_of_the_descan():
    """Errors of its slope are calibrated where neighbouring tiles are deflected alike."""
    places = np.stack(np.meshgrid(*[(np.arange(5) - 2) / 4] * 2, indexing="ij"), -1).reshape(-1, 2)
    errors = np.full((25, 2), 0.01)
    rng = np.random.default_rng(0)
    alone, deflected = [], []
    for _ in range(40):
        noise = rng.normal(0, 0.01, (25, 2))
        middle = rng.uniform(-0.7, 0.7, 2)
        away = places - middle
        field = 3.0 * away * np.exp(-np.sum(away**2, 1, keepdims=True) / 0.18)
        for scores, tiles in ((alone, noise), (deflected, noise + 0.1 * field)):
            found = plane_of_tiles(places, places @ SLOPES.T + tiles, errors)
            scores.append((found.slopes - SLOPES) / found.errors)
    assert np.sqrt(np.mean(np.square(alone))) < 1.2
    assert np.sqrt(np.mean(np.square(deflected))) < 1.5
