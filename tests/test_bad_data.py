"""Pixels and shots that are no data: found, counted, placed and left out; sound data stay untouched."""

import re

import h5py
import numpy as np
import pytest
from scans import ABOUT, GRID, blobs

import jaxptycho as jp
from jaxptycho.data.bad_pixels import dead_pixels, describe_pixels
from jaxptycho.data.bad_shots import far_positions, repeated_patterns, wild_doses
from jaxptycho.io.native import write_native


@pytest.fixture(scope="module")
def sound():
    return blobs()


def dataset(counts, places, **more):
    return jp.Dataset(counts, places, GRID, about=ABOUT, **more)


def hidden(data):
    return set(map(tuple, np.argwhere(~data.mask)))


def column(n, *columns):
    return {(y, x) for y in range(n) for x in columns}


def flagged_column(counts):
    counts = counts.astype(np.uint32)
    counts[:, :, 40] = 2**32 - 1
    return counts


def flagged_mostly(counts):
    counts = counts.copy()
    counts[::2, 7, 9] = counts[1::3, 7, 9] = 2**16 - 1
    return counts


def flagged_64_bit(counts):
    counts = counts.astype(np.uint64)
    counts[:, 3, 5] = 2**64 - 1
    return counts


def negative_gap(counts):
    counts = counts.astype(np.int32)
    counts[:, :, 26:28] = -1
    return counts


def not_a_number(counts):
    counts = counts.astype(np.float32)
    counts[:, 10:12, 30] = np.nan
    return counts


def hot(counts):
    counts = counts.copy()
    counts[:, 5, 40] = 65535
    return counts


def noisy_hot(counts):
    counts = counts.copy()
    counts[:, 24, 24] = np.random.default_rng(1).poisson(20_000, len(counts))
    counts[:, 24, 25] = np.random.default_rng(2).poisson(9000, len(counts))
    return counts


def flags_as_floats(counts):
    counts = counts.astype(np.float32)
    counts[:, 20, 20] = 2.0**32
    return counts


def stuck(counts):
    counts = counts.copy()
    counts[:, 22, 27] = 90
    return counts


def dead_cross(counts):
    counts = counts.copy()
    counts[:, 20:22] = 0
    counts[:, :, 27:29] = 0
    return counts


def dead_pixel(counts):
    counts = counts.copy()
    counts[:, 21, 26] = 0
    return counts


def dead_cluster(counts):
    counts = counts.copy()
    counts[:, 21:23, 25:28] = 0
    return counts


def stuck_cluster(counts):
    counts = counts.copy()
    counts[:, 5:8, 39:42] = 3000
    return counts


def hot_row(counts):
    counts = counts.copy()
    counts[:, 6] += 400
    return counts


def dead_quadrant(counts):
    counts = counts.copy()
    counts[:, 24:, :24] = 0
    return counts


def dead_half(counts):
    counts = counts.copy()
    counts[:, :, 26:] = 0
    return counts


def pixels(rows, columns):
    return {(y, x) for y in rows for x in columns}


BAD_PIXELS = {
    "stuck cluster": (stuck_cluster, pixels(range(5, 8), range(39, 42)), "stuck"),
    "hot row": (hot_row, pixels([6], range(48)), r"\(row 6\) hot"),
    "dead quadrant": (dead_quadrant, pixels(range(24, 48), range(24)), "dead"),
    "dead half": (dead_half, pixels(range(48), range(26, 48)), "dead"),
    "column at 2^32 - 1": (flagged_column, column(48, 40), "48 pixels \\(column 40\\) flagged"),
    "largest value in most patterns": (flagged_mostly, {(7, 9)}, "flagged"),
    "64 bits": (flagged_64_bit, {(3, 5)}, "flagged"),
    "gap at -1": (
        negative_gap,
        column(48, 26, 27),
        "columns 26 to 27\\) at the same negative value",
    ),
    "NaN": (not_a_number, {(10, 30), (11, 30)}, "flagged"),
    "one hot pixel": (hot, {(5, 40)}, "1 pixel \\(\\[5, 40\\]\\)"),
    "two hot pixels that flicker": (noisy_hot, {(24, 24), (24, 25)}, "hot"),
    "flags that became floats": (flags_as_floats, {(20, 20)}, "stuck|hot"),
    "stuck": (stuck, {(22, 27)}, "stuck"),
    "gaps of zeros": (
        dead_cross,
        column(48, 27, 28) | {(y, x) for y in (20, 21) for x in range(48)},
        "dead",
    ),
    "dead pixel": (dead_pixel, {(21, 26)}, "dead"),
    "dead cluster": (dead_cluster, {(y, x) for y in (21, 22) for x in (25, 26, 27)}, "dead"),
}


@pytest.mark.parametrize("name", BAD_PIXELS)
def test_bad_pixels_are_masked_counted_and_placed(name, sound):
    spoil, where, words = BAD_PIXELS[name]
    counts, places = sound
    with pytest.warns(UserWarning, match=words):
        data = dataset(spoil(counts), places)
    assert hidden(data) == where
    seen = np.array([[(y, x) not in where for x in range(48)] for y in range(48)])
    np.testing.assert_array_equal(data.mean_pattern(), np.where(seen, counts.mean(0), 0))
    assert data.subset(np.arange(5)).mask is data.mask


@pytest.mark.parametrize("dose", [20, 200, 2e3, 2e5])
@pytest.mark.parametrize("dtype", ["u2", "i4", "f4"])
def test_sound_patterns_have_no_bad_pixels_at_any_dose(dose, dtype):
    counts, places = blobs(side=9, dose=dose, seed=3)
    assert dataset(counts.astype(dtype), places).mask is None


def test_nothing_is_masked_where_the_user_keeps_it(sound):
    counts, places = sound
    data = dataset(hot(counts), places, bad_data="keep")
    assert data.mask is None
    assert data.mean_pattern()[5, 40] == 65535


def test_all_pixels_at_the_largest_value_are_refused():
    with pytest.raises(ValueError, match="no pixel of the detector measures"):
        jp.Dataset(np.full((9, 6, 4), 255, np.uint8), np.zeros((9, 2)), jp.Grid((6, 4), 0.5, 80.0))


def discs(*centres, radius=9.0, n=64):
    y, x = np.mgrid[:n, :n]
    return sum(1000.0 * (np.hypot(y - a, x - b) < radius) for a, b in centres)


DARK = {
    "one disc": discs((32, 32)),
    "two discs with a narrow gap": discs((32, 20.4), (32, 41)),
    "a lattice that lies along the axes": discs(
        *[(y, x) for y in (10, 32, 54) for x in (10, 32, 54)]
    ),
    "touching discs": discs((20, 20), (20, 38), (36, 29), (38, 38)),
    "all but a corner": discs((32, 32), radius=44.2),
    "a square beam": np.pad(np.full((20, 20), 500.0), 22),
}


@pytest.mark.parametrize("name", DARK)
def test_dark_regions_of_a_pattern_are_no_dead_pixels(name):
    total = DARK[name]
    assert not dead_pixels(total, np.ones(total.shape, bool)).any()


def test_places_of_pixels_read_as_rows_columns_or_first_pixel():
    pixels = np.zeros((9, 8), bool)
    pixels[:, 3:5] = True
    assert describe_pixels(pixels) == "18 pixels (columns 3 to 4)"
    assert describe_pixels(pixels.T) == "18 pixels (rows 3 to 4)"
    pixels[0, 0] = True
    assert describe_pixels(pixels) == "19 pixels (first: [0, 0])"


def wild(counts):
    counts = counts.copy()
    counts[60] = 60_000
    return counts


def zinger(counts):
    counts = counts.copy()
    counts[17, 3, 4] = 65_535
    return counts


def overflown(counts):
    counts = counts.astype(np.int64)
    counts[99, 0, 0] = 2**40
    return counts


def lost(counts):
    counts = counts.copy()
    counts[[4, 5, 6, 77]] = 0
    return counts


def blanked(counts):
    """Hardly any counts while the beam is blanked."""
    counts = counts.copy()
    counts[60:80] = np.random.default_rng(1).poisson(0.02, counts[60:80].shape)
    return counts


def stopped(counts):
    """A camera that repeats a frame."""
    counts = counts.copy()
    counts[60:70] = counts[60]
    return counts


def each_twice(counts):
    return np.repeat(counts[::2], 2, axis=0)


def not_finite(counts):
    """Single values of four frames."""
    counts = counts.astype(np.float32)
    counts[[3, 4, 50, 70], [5, 20, 24, 30], 24] = [np.nan, np.inf, np.nan, -np.inf]
    return counts


BAD_SHOTS = {
    "a blanked beam": (blanked, list(range(60, 80))),
    "a stopped camera": (stopped, list(range(61, 70))),
    "each pattern twice": (each_twice, list(range(1, 144, 2))),
    "not finite": (not_finite, [3, 4, 50, 70]),
    "one wild pattern": (wild, [60]),
    "one pixel of one pattern": (zinger, [17]),
    "more than 32 bits": (overflown, [99]),
    "lost patterns": (lost, [4, 5, 6, 77]),
}


@pytest.mark.parametrize("name", BAD_SHOTS)
def test_bad_patterns_are_left_out_counted_and_placed(name, sound):
    spoil, bad = BAD_SHOTS[name]
    counts, places = sound
    with pytest.warns(
        UserWarning, match=rf"left out {len(bad)} of 144 shots .*\(first: shot {bad[0]}\b"
    ):
        data = dataset(spoil(counts), places)
    good = np.delete(np.arange(144), bad)
    np.testing.assert_array_equal(data.shots[0], good)
    np.testing.assert_array_equal(data.positions[0], places[good])
    counts = spoil(counts)
    np.testing.assert_allclose(data.dose(), counts[good].sum((1, 2)))
    assert data.sample.largest.max() <= counts[good].max()  # no bad shot in what cautions look at
    np.testing.assert_allclose(data.mean_pattern(), counts[good].mean(0))
    np.testing.assert_array_equal(data.subset(np.array([58, 61])).shots[0], good[[58, 61]])
    np.testing.assert_array_equal(
        data.patterns(0, [58, 61]), np.fft.ifftshift(counts[good[[58, 61]]], axes=(1, 2))
    )


def test_a_file_keeps_what_is_left(sound, tmp_path):
    counts, places = sound
    with pytest.warns(UserWarning, match="left out"):
        data = dataset(wild(counts), places)
    write_native(tmp_path / "x.h5", data)
    back = jp.read(tmp_path / "x.h5")
    np.testing.assert_array_equal(back.dose(), data.dose())


def test_calculated_patterns_without_noise_may_be_equal(sound):
    counts, places = sound
    disc = np.full_like(counts, counts.mean(0).round())
    disc[:30] = counts[:30]
    assert dataset(disc, places).n_shots == [144]
    assert dataset(disc[30:], places[30:]).n_shots == [114]
    few = np.zeros((20, 8, 8))
    few[:, 2, 2:5] = np.random.default_rng(0).integers(1, 3, (20, 3))  # equal by chance
    assert not repeated_patterns(few.sum((1, 2)), few.__getitem__).any()


def test_the_edge_of_an_opaque_region_is_data():
    places = np.stack(np.meshgrid(range(20), range(20)), -1).reshape(-1, 2) * 1.0
    bar = np.clip((places[:, 0] - 3) / 4, 0.001, 1)  # half covered at its edge
    dose = np.random.default_rng(0).poisson(9000 * bar).astype(float)
    assert not wild_doses(dose, places).any()


def test_brighter_regions_are_no_wild_patterns():
    places = np.stack(np.meshgrid(range(20), range(20)), -1).reshape(-1, 2) * 1.0
    dose = np.random.default_rng(0).poisson(np.where(places[:, 0] < 3, 9000, 900)).astype(float)
    assert not wild_doses(dose, places).any()
    assert not wild_doses(np.random.default_rng(1).poisson(4, 400).astype(float), places).any()
    assert not wild_doses(37.0 * np.random.default_rng(1).poisson(4, 400), places).any()


FAR = {
    "one at 10⁵ Å": ([5], lambda p: np.where(np.arange(len(p))[:, None] == 5, 1e5, p)),
    "two at zero of a stage frame": (
        [0, 9],
        lambda p: np.where(np.isin(np.arange(len(p)), [0, 9])[:, None], 0, p + 1e8),
    ),
    "in x alone": ([3], lambda p: p + 400 * (np.arange(len(p)) == 3)[:, None] * np.array([0, 1])),
}


@pytest.mark.parametrize("name", FAR)
def test_positions_far_from_the_scan_are_left_out(name, sound):
    bad, move = FAR[name]
    counts, places = sound
    with pytest.warns(UserWarning, match=f"positions far from the rest .*first: shot {bad[0]}"):
        data = dataset(counts, move(places))
    np.testing.assert_array_equal(data.shots[0], np.delete(np.arange(144), bad))


def test_scans_of_any_shape_keep_all_positions():
    t = np.sqrt(np.arange(400))
    spiral = np.stack([t * np.cos(3.5 * t), t * np.sin(3.5 * t)], -1)
    line = np.stack([np.arange(50.0), np.zeros(50)], -1)
    two_fields = np.concatenate([spiral, spiral + 500])
    for places in (spiral, line, two_fields, np.zeros((9, 2)), line[:2]):
        assert not far_positions(places, 10.0).any()


def test_empty_patterns_of_a_low_dose_are_data():
    counts = np.random.default_rng(0).poisson(4 / 256, (196, 16, 16)).astype(np.uint8)
    places = np.stack(np.meshgrid(range(14), range(14)), -1).reshape(-1, 2) * 1.0
    empty = np.flatnonzero(~counts.any((1, 2)))
    words = re.escape(f"{len(empty)} of 196 patterns hold no counts (first: shot {empty[0]})")
    with pytest.warns(UserWarning, match=words):
        data = jp.Dataset(counts, places, jp.Grid((16, 16), 0.5, 300.0))
    assert data.n_shots == [196]


def test_masked_arrays_bring_their_mask(sound):
    counts, places = sound
    bad = np.zeros(counts.shape, bool)
    bad[:, 4, 5:7] = True
    data = dataset(np.ma.array(counts, mask=bad), places)
    assert hidden(data) == {(4, 5), (4, 6)}
    raster = np.ma.array(counts, mask=bad).reshape(12, 12, 48, 48)
    assert hidden(dataset(raster, places)) == {(4, 5), (4, 6)}
    bad[3, 9, 9] = True
    with pytest.raises(ValueError, match="hides other pixels from pattern to pattern"):
        dataset(np.ma.array(counts, mask=bad), places)
    with pytest.warns(UserWarning, match="whose counts or position are not finite .first: shot 7"):
        left = dataset(counts, np.ma.array(places, mask=np.arange(144)[:, None] == [7, 7]))
    assert left.n_shots == [143]


def test_a_scan_with_two_axes_is_one_view(sound, tmp_path):
    counts, places = sound
    flat = dataset(counts, places)
    for given in (places, places.reshape(12, 12, 2)):
        data = dataset(counts.reshape(12, 12, 48, 48), given)
        assert data.n_shots == [144]
        np.testing.assert_array_equal(
            data.patterns(0, [5, 3, 100, 3]), flat.patterns(0, [5, 3, 100, 3])
        )
    with h5py.File(tmp_path / "raster.h5", "w") as file:
        file["counts"], file["positions"] = (
            counts.reshape(12, 12, 48, 48),
            places.reshape(12, 12, 2),
        )
        file.attrs.update(voltage_kv=80.0, pixel_angstrom=0.3, **ABOUT)
    read = jp.read(tmp_path / "raster.h5")
    np.testing.assert_array_equal(read.dose(), flat.dose())
    np.testing.assert_array_equal(read.positions[0], places)
    tilted = dataset(
        counts.reshape(12, 12, 48, 48), places.reshape(12, 12, 2), tilts=np.arange(12) * 0.1
    )
    assert tilted.n_views == 12


MIXED = {
    "8 and 16 bits": ("u1", "u2", 20, 2000, "u2"),
    "16 and 8 bits": ("u2", "u1", 2000, 20, "u2"),
    "whole numbers and fractions": ("u2", "f4", 200, 0.37, "f4"),
    "signed and unsigned": ("i4", "u4", 50, 4e8, "i4"),
    "64 bits": ("i8", "u1", 70_000, 3, "i4"),
}


@pytest.mark.parametrize("name", MIXED)
@pytest.mark.parametrize("tilted", [True, False])
def test_views_of_any_type_are_written_without_loss(name, tilted, tmp_path):
    first, second, low, high, kind = MIXED[name]
    rng, grid = np.random.default_rng(0), jp.Grid((16, 16), 0.5, 300.0)

    def counts(dtype, mean):
        drawn = rng.poisson(20, (9, 16, 16)) * (mean / 20)
        return drawn.astype(dtype)

    places = np.stack(np.meshgrid(range(3), range(3)), -1).reshape(-1, 2) * 1.0
    views = [counts(first, low), counts(second, high)]
    data = jp.Dataset(views, [places, places], grid, tilts=np.array([0, 0.5]) if tilted else None)
    write_native(tmp_path / "x.h5", data)
    back = jp.read(tmp_path / "x.h5")
    assert back.n_views == 2
    assert {np.dtype(kind)} == set(back.kinds)
    for view in (0, 1):
        np.testing.assert_allclose(back.dose(view), views[view].sum((1, 2), dtype=float), rtol=1e-6)
