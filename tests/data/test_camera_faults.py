"""Faults of cameras that fluctuate or come once: found and placed, and silence on sound data."""

import numpy as np
import pytest
from scans import ABOUT, GRID, blobs
from scipy.ndimage import gaussian_filter

import jaxptycho as jp
from jaxptycho.start.beam_stop import beam_stop
from jaxptycho.start.cautions import cautions
from jaxptycho.start.gain_steps import gain_step
from jaxptycho.start.lost_frames import shifted_frames
from jaxptycho.start.pixel_response import odd_pixels


@pytest.fixture(scope="module")
def sound():
    return blobs()


def dataset(counts, places):
    return jp.Dataset(counts, places, GRID, about=ABOUT)


def changed(counts, change):
    counts = counts.astype(np.int64)
    change(counts, np.random.default_rng(7))
    return counts.clip(0, 65_000).astype(np.uint16)


def uniform_in_the_dark(counts, rng):
    counts[:, 5:8, 30:33] = rng.integers(0, 3000, (len(counts), 3, 3))


def bursts_beside_the_disc(counts, rng):
    counts[:, 20:22, 36:40] += rng.gamma(0.3, 4000.0, (len(counts), 2, 4)).astype(int)


def flicker_in_the_disc(counts, rng):
    counts[:, 22:25, 23:26] = rng.integers(0, 900, (len(counts), 3, 3))


def steady_and_bent(counts, rng):
    for y, x in [(40, 8), (41, 8), (42, 8), (42, 9), (42, 10)]:
        counts[:, y, x] = rng.poisson(2000.0, len(counts))


def rectangle(rows, columns):
    return {(y, x) for y in rows for x in columns}


CLUSTERS = {
    "in the dark field": (uniform_in_the_dark, rectangle(range(5, 8), range(30, 33))),
    "beside the disc": (bursts_beside_the_disc, rectangle(range(20, 22), range(36, 40))),
    "in the disc": (flicker_in_the_disc, rectangle(range(22, 25), range(23, 26))),
    "an angle": (steady_and_bent, {(40, 8), (41, 8), (42, 8), (42, 9), (42, 10)}),
}


@pytest.mark.parametrize("name", CLUSTERS)
@pytest.mark.parametrize("dose", [2e3, 2e4])
def test_clusters_of_hot_pixels_are_masked(name, dose):
    change, where = CLUSTERS[name]
    counts, places = blobs(dose=dose)
    with pytest.warns(UserWarning, match=f"masked {len(where)} pixels"):
        data = dataset(changed(counts, change), places)
    assert set(map(tuple, np.argwhere(~data.mask))) == where


def single_pixels(counts, rng):
    counts[17, 3, 4] += 800
    counts[30, 24, 24] += 2500
    counts[99, 40, 41] += 300


def streaks(counts, rng):
    for shot, row in ((12, 8), (55, 30), (140, 22)):
        counts[shot, row, 10:13] += 1500


def one_frame_in_thirty(counts, rng):
    counts[np.arange(4, 144, 30), rng.integers(0, 48, 5), rng.integers(0, 48, 5)] += 1200


SPIKES = {
    "single pixels": (single_pixels, [17, 30, 99]),
    "streaks": (streaks, [12, 55, 140]),
    "one frame in thirty": (one_frame_in_thirty, [4, 34, 64, 94, 124]),
}


@pytest.mark.parametrize("name", SPIKES)
def test_patterns_with_a_spike_are_left_out(name, sound):
    change, bad = SPIKES[name]
    with pytest.warns(UserWarning, match=rf"left out {len(bad)} of 144 shots .*spike"):
        data = dataset(changed(sound[0], change), sound[1])
    np.testing.assert_array_equal(data.shots[0], np.delete(np.arange(144), bad))


def lower_halves_of_the_next(counts, rng):
    for shot in (40, 90):
        counts[shot, 24:] = counts[shot + 1, 24:]


def upper_part_of_the_one_before(counts, rng):
    counts[70, :20] = counts[69, :20]


def columns_of_the_next(counts, rng):
    for shot in (30, 100, 102):
        counts[shot, :, 26:] = counts[shot + 1, :, 26:]


TORN = {
    "lower halves of the next": (lower_halves_of_the_next, [40, 90]),
    "upper part of the one before": (upper_part_of_the_one_before, [70]),
    "columns of the next": (columns_of_the_next, [30, 100, 102]),
}


@pytest.mark.parametrize("name", TORN)
@pytest.mark.parametrize("dose", [500, 2e4])
def test_torn_patterns_are_left_out(name, dose):
    change, bad = TORN[name]
    counts, places = blobs(dose=dose)
    with pytest.warns(UserWarning, match=r"left out \d of 144 shots .*torn"):
        data = dataset(changed(counts, change), places)
    left_out = set(range(144)) - set(data.shots[0])
    assert set(bad) <= left_out <= {*bad, *(shot + 1 for shot in bad), *(shot - 1 for shot in bad)}


def said(counts, places):
    return {caution.key: caution.text for caution in cautions(dataset(counts, places))}


WRAPPED = {
    "8 bits, far beyond": (3e5, 256, np.uint8),
    "8 bits, just beyond": (7e4, 256, np.uint8),
    "12 bits": (1.2e6, 4096, np.uint16),
    "16 bits": (2e7, 65_536, np.uint16),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_counts_that_begin_again_at_zero(name):
    dose, modulus, dtype = WRAPPED[name]
    counts, places = blobs(dose=dose)
    assert f"{modulus - 1}" in said((counts % modulus).astype(dtype), places)["data.file"]


N = 64
V, U = np.mgrid[-32:32, -32:32]


def texture(seed, size=2.5):
    """Smooth relative variation of a pattern, by a tenth."""
    return np.exp(0.3 * gaussian_filter(np.random.default_rng(seed).normal(size=(N, N)), size))


def disc(y=0, x=0, radius=24.3, height=3e4, seed=0):
    return height * texture(seed) / (1 + np.exp((np.hypot(V - y, U - x) - radius) / 0.5)) + 40


GAINS = {
    "quadrant, 1.1": (np.s_[32:, :32], 1.1, (32, 63), (0, 31)),
    "quadrant, 1.3": (np.s_[:32, :32], 1.3, (0, 31), (0, 31)),
    "quadrant, 2": (np.s_[:32, 32:], 2.0, (0, 31), (32, 63)),
    "quadrant off the middle": (np.s_[:28, :36], 1.5, (0, 27), (0, 35)),
    "half": (np.s_[:, 32:], 0.7, (0, 63), (32, 63)),
    "lower half": (np.s_[32:], 1.4, (32, 63), (0, 63)),
}


@pytest.mark.parametrize("name", GAINS)
@pytest.mark.parametrize("seed", range(3))
def test_a_chip_of_another_gain(name, seed):
    region, gain, rows, columns = GAINS[name]
    pattern = disc(3, -2, seed=seed)
    pattern[region] *= gain
    counts = np.random.default_rng(seed).poisson(pattern).astype(float)
    found = gain_step(counts, np.ones((N, N), bool))
    assert found is not None
    assert (found.rows, found.columns) == (rows, columns)
    np.testing.assert_allclose(found.gain, gain, rtol=0.05)


EVEN = {
    "disc": disc(),
    "dim disc": disc(height=300),
    "disc at the edge": disc(20, -18),
    "large disc": disc(radius=40),
    "small disc": disc(radius=7),
    "ring": disc() * (np.hypot(V, U) > 12),
    "beam": 1e6 * np.exp(-(V**2 + U**2) / 50) + 3,
    "square beam": 3e4 * ((abs(V) < 20) & (abs(U) < 20)) * texture(4) + 20,
    "lattice of discs": sum(disc(y, x, 6) for y in (-18, 0, 18) for x in (-18, 0, 18)),
    "overlapping discs": sum(disc(y, x, 14, seed=y + 99) for y in (-16, 0, 16) for x in (-16, 16)),
}


@pytest.mark.parametrize("name", EVEN)
@pytest.mark.parametrize("seed", range(3))
def test_one_gain_and_no_beam_stop(name, seed):
    counts = np.random.default_rng(seed).poisson(EVEN[name]).astype(float)
    everywhere = np.ones((N, N), bool)
    assert gain_step(counts, everywhere) is None
    assert not beam_stop(counts, everywhere, direct_beam=name != "ring").any()


def test_another_gain_is_a_caution():
    rng = np.random.default_rng(0)
    patterns = np.repeat(disc()[None] / 100, 144, 0)
    patterns[:, 32:, :32] *= 1.3
    places = blobs(side=12, dose=1.0)[1]
    data = jp.Dataset(rng.poisson(patterns).astype(np.uint16), places, jp.Grid((64, 64), 0.3, 80.0))
    (caution,) = [c for c in cautions(data) if c.key == "data.mask_file"]
    assert "rows 32 to 63 and columns 0 to 31 are 1.3 times" in caution.text


def shadow(region, left):
    def change(counts, rng):
        counts[:, region] = rng.binomial(counts[:, region], left)

    return change


Y, X = np.mgrid[-24:24, -24:24]
STOPS = {
    "a bar to the middle": shadow((np.abs(Y) < 3) & (X < 2), 0.05),
    "a thin bar": shadow((np.abs(X - 1) < 2) & (Y < 3), 0.02),
    "a disc on an arm": shadow((np.hypot(Y, X) < 4) | ((np.abs(Y) < 2) & (X > 0)), 0.03),
    "a disc in the middle": shadow(np.hypot(Y, X) < 5, 0.03),
    "a wedge": shadow((np.abs(Y) < 2 - X / 5) & (X < 3), 0.1),
}


@pytest.mark.parametrize("name", STOPS)
def test_a_beam_stop_that_lets_some_through(name, sound):
    assert "beam stop" in said(changed(sound[0], STOPS[name]), sound[1])["data.mask_file"]


def serpentine(counts, places, length=12):
    """The same scan, with every other line in the other direction."""
    order = np.arange(len(counts)).reshape(-1, length)
    order[1::2] = order[1::2, ::-1]
    return counts[order.ravel()], places[order.ravel()]


def fine_scan(dose, seed=0, lines=64, length=12, vacuum=0):
    """Spots that move with the gradient of a specimen over a few steps of the scan, and rest where
    there is vacuum, at some shots of both ends of the lines.
    """
    rng = np.random.default_rng(seed)
    moved = gaussian_filter(rng.normal(size=(2, lines, length)), (0, 1.5, 1.5))
    inside = np.abs(np.arange(length) - (length - 1) / 2) < length / 2 - vacuum
    if vacuum:
        moved *= gaussian_filter(inside.astype(float), 1.0)
    moved = moved.reshape(2, -1, 1, 1)
    y, x = np.mgrid[-8:8, -8:8]
    away = (y - 4 * moved[0]) ** 2 + (x - 4 * moved[1]) ** 2
    spots = np.exp(-away / 8)
    counts = rng.poisson(dose * spots / spots.sum((1, 2), keepdims=True)).astype(np.uint16)
    return counts, np.argwhere(np.ones((lines, length))) * 1.0


def lost(at):
    return lambda counts: np.concatenate([counts[:at], counts[at + 1 :], counts[-1:] // 2])


def extra(at):
    return lambda counts: np.concatenate([counts[:at], counts[at - 1 : at] // 2, counts[at:-1]])


ORDERS = {"back and forth": serpentine, "with returns": lambda *scan: scan}
SHIFTED = {
    "lost at 100": (lost(100), 1),
    "lost at the start": (lost(0), 1),
    "one too many at 250": (extra(250), -1),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dose", [300, 20_000])
@pytest.mark.parametrize("name", SHIFTED)
def test_frames_off_by_one(name, dose, order):
    change, ahead = SHIFTED[name]
    counts, places = ORDERS[order](*fine_scan(dose))
    found = shifted_frames(jp.Dataset(change(counts), places, jp.Grid((16, 16), 0.5, 80.0)))
    assert found is not None
    assert found.ahead == ahead


@pytest.mark.filterwarnings("ignore:.*hold no counts")
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("seed", range(3))
def test_frames_in_their_places(seed, order):
    for dose in (5, 20_000):
        counts, places = ORDERS[order](*fine_scan(dose, seed))
        data = jp.Dataset(counts, places, jp.Grid((16, 16), 0.5, 80.0))
        assert shifted_frames(data) is None


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("vacuum", [1, 2, 3])
def test_edges_of_a_particle_are_no_ends_of_lines(seed, vacuum):
    counts, places = fine_scan(20_000, seed, 11, 15, vacuum)
    assert shifted_frames(jp.Dataset(counts, places, jp.Grid((16, 16), 0.5, 80.0))) is None


def test_a_frame_too_few_is_a_caution():
    counts, places = serpentine(*blobs(side=16, step=0.6, defocus=40.0), length=16)
    assert "one lost before" in said(lost(30)(counts), places)["data.frames"]


SCANS = {
    "weak": {"strength": 0.02, "dose": 3e4},
    "strong": {"strength": 1.5},
    "in focus": {"defocus": 0.0, "step": 0.6},
    "a fine scan": {"defocus": 40.0, "step": 0.6, "seed": 3},
    "far from focus": {"defocus": 260.0},
    "a lattice": {"lattice": 13},
    "one electron": {"dose": 1.0},
    "ten electrons": {"dose": 10.0},
    "many": {"dose": 1e6, "seed": 4},
    "disc off the middle": {"moved": (3, -4)},
}


@pytest.mark.filterwarnings("ignore:.*hold no counts", "ignore:the probe is")
@pytest.mark.parametrize("name", SCANS)
def test_sound_scans_are_left_alone(name):
    data = dataset(*serpentine(*blobs(**SCANS[name])))
    assert data.mask is None
    assert data.n_shots == [144]
    faults = {"data.file", "data.mask_file", "data.frames"}
    assert not faults & {caution.key for caution in cautions(data)}


def test_the_direct_beam_behind_a_stop_is_no_strong_pixel():
    total = np.random.default_rng(0).poisson(500 * texture(0)).astype(float)
    total[32, 33] = total[20, 40] = 9000.0
    everywhere = np.ones((N, N), bool)
    found = odd_pixels(total, np.ones((N, N)), everywhere, None, 1.0)
    assert {what: np.argwhere(pixels).tolist() for what, pixels in found.items()} == {
        "strong, above their neighbours": [[20, 40]]
    }
