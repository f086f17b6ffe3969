"""Parts of a measurement: windows, bins and margins of the detector, a region of the scan."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier

import jax.numpy as jnp
import numpy as np
import pytest

import jaxptycho as jp
import jaxptycho.data.dataset
from jaxptycho.data import ProcessShard
from jaxptycho.data.windows import bin_detector, crop_detector, crop_scan, pad_detector
from jaxptycho.physics.detection import sum_pixels

PIXEL = 0.4
PLACES = np.stack(np.meshgrid(np.arange(4.0), np.arange(5.0), indexing="ij"), -1).reshape(-1, 2)


class Counted:
    """Patterns that note which were read."""

    def __init__(self, counts):
        self.counts = counts
        self.shape = counts.shape
        self.dtype = counts.dtype
        self.read = []

    def __getitem__(self, index):
        self.read += np.arange(self.shape[0])[index].tolist()
        return self.counts[index]


def patterns(shape, shots=20, seed=0):
    return np.random.default_rng(seed).poisson(5, (shots, *shape)).astype(np.uint16) + np.uint16(1)


def measured(shape=(12, 15), counts=None, **more):
    counts = patterns(shape) if counts is None else counts
    return jp.Dataset(counts, PLACES, jp.Grid(shape, PIXEL, 80.0), bad_data="keep", **more)


def shown(data, shots=(0, 7), view=0):
    return np.fft.fftshift(data.patterns(view, np.array(shots)), axes=(1, 2))


def middle_marked(shape):
    """Counts whose zero frequency alone has a thousand."""
    counts = np.ones((20, *shape), np.uint16)
    counts[:, shape[0] // 2, shape[1] // 2] = 1000
    return counts


@pytest.mark.parametrize("shape", [(12, 12), (13, 13), (12, 13)])
@pytest.mark.parametrize("size", [(6, 6), (7, 7), (6, 7)])
def test_crop_and_pad_keep_the_zero_frequency_and_dk(shape, size):
    data = measured(shape, middle_marked(shape))
    small = crop_detector(data, size)
    back = pad_detector(small, shape)
    assert small.grid.shape == size
    assert back.grid.shape == shape
    for part in (small, back):
        assert part.patterns(0, [3])[0, 0, 0] == 1000  # the corner is the zero frequency
        np.testing.assert_allclose(part.grid.dk, data.grid.dk)
    np.testing.assert_allclose(back.grid.pixel, data.grid.pixel)
    np.testing.assert_allclose(small.grid.pixel, np.array(shape) / size * PIXEL)
    assert back.mask.sum() == size[0] * size[1]
    assert not shown(back)[:, ~back.mask].any()


def test_a_window_of_rows_and_columns_is_that_part():
    data = measured((12, 15))
    part = crop_detector(data, [2, 3, 9, 14])
    np.testing.assert_array_equal(shown(part), patterns((12, 15))[[0, 7], 2:9, 3:14])
    np.testing.assert_allclose(part.dose(), patterns((12, 15))[:, 2:9, 3:14].sum((1, 2)))


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_bins_sum_counts_and_grow_dk(factor):
    counts = patterns((12, 18))
    mask = np.ones((12, 18), bool)
    mask[4, 7] = mask[0, 0] = False
    part = bin_detector(measured((12, 18), counts, mask=mask), factor)
    blocks = (counts * mask).reshape(20, 12 // factor, factor, 18 // factor, factor).sum((2, 4))
    whole = mask.reshape(12 // factor, factor, 18 // factor, factor).all((1, 3))
    np.testing.assert_array_equal(part.mask, whole)
    np.testing.assert_array_equal(shown(part), (blocks * whole)[[0, 7]])
    np.testing.assert_allclose(part.grid.dk, factor / (np.array([12, 18]) * PIXEL))
    assert part.kinds == [np.dtype(np.uint32)]


def test_bins_are_those_of_a_super_sampled_detector():
    counts = patterns((15, 21))
    part = bin_detector(measured((15, 21), counts), 3)
    fine = jnp.asarray(np.fft.ifftshift(counts.astype(float), axes=(1, 2)))
    np.testing.assert_allclose(part.patterns(0, [4])[0], sum_pixels(fine[4], 3))


def probe_of(grid, semiangle=0.02, defocus=20.0):
    spectrum = jp.AberratedProbe(semiangle, {"defocus": defocus}).spectrum(grid)[0]
    return np.fft.fftshift(np.fft.ifft2(spectrum, norm="ortho"))


def test_a_guess_of_the_probe_follows():
    grid = jp.Grid((96, 96), 0.25, 80.0)
    guess = probe_of(grid)
    data = jp.Dataset(patterns((96, 96)), PLACES, grid, probe_guess=guess, bad_data="keep")
    parts = {
        "crop": crop_detector(data, (64, 64)),
        "pad": pad_detector(data, (128, 120)),
        "bin": bin_detector(data, 2),
    }
    for name, part in parts.items():
        expected = probe_of(part.grid)
        overlap = abs(np.vdot(part.probe_guess, expected)) / (
            np.linalg.norm(expected) * np.linalg.norm(part.probe_guess)
        )
        assert overlap > (0.98 if name == "bin" else 0.995), name
        assert np.linalg.norm(part.probe_guess) == pytest.approx(np.linalg.norm(guess), rel=0.02)


def test_nothing_is_read_before_patterns_are_asked_for(monkeypatch):
    monkeypatch.setattr(jaxptycho.data.dataset, "IN_MEMORY_BYTES", 0)
    counted = Counted(patterns((12, 12)))
    data = measured((12, 12), counted)
    counted.read.clear()
    part = crop_scan(data, [[1, 0], [2, 3]])
    part = pad_detector(bin_detector(crop_detector(part, (8, 8)), 2), (6, 6))
    one = part.view(0)
    assert counted.read == []
    assert one.n_shots == [8]
    np.testing.assert_array_equal(one.shots[0], [5, 6, 7, 8, 10, 11, 12, 13])
    expected = counted.counts[[6, 12], 2:10, 2:10].reshape(2, 4, 2, 4, 2).sum((2, 4))
    counted.read.clear()
    np.testing.assert_array_equal(shown(part, (1, 6))[:, 1:5, 1:5], expected)
    assert counted.read == [6, 12]
    assert part.dose()[1] == expected[0].sum()
    assert part.mean_pattern().sum() == pytest.approx(part.dose().mean())


def test_a_region_is_in_the_frame_of_the_file():
    data = jp.Dataset(patterns((8, 8)), PLACES + 1e8, jp.Grid((8, 8), 0.4, 80.0), bad_data="keep")
    assert any(data.frame)
    part = crop_scan(data, [[1e8 + 0.5, 1e8], [1e8 + 1.5, 1e8 + 2]])
    np.testing.assert_allclose(part.positions[0] + part.frame - 1e8, [[1, 0], [1, 1], [1, 2]])
    np.testing.assert_array_equal(part.shots[0], [5, 6, 7])


def test_every_view_of_a_series_has_its_part():
    counts = np.stack([patterns((8, 10), seed=seed) for seed in range(3)])
    places = np.stack([PLACES - 1.5, PLACES - 2.0, PLACES - 1.0])
    tilts = np.array([-0.2, 0.0, 0.2])
    data = jp.Dataset(counts, places, jp.Grid((8, 10), 0.4, 80.0), tilts=tilts, bad_data="keep")
    part = bin_detector(crop_scan(data, [[-1, -1], [1, 1]]), 2)
    for view, own in enumerate(places):
        inside = np.flatnonzero((np.abs(own) <= 1).all(1))
        np.testing.assert_array_equal(part.shots[view], inside)
        binned = counts[view][inside[:1]].reshape(1, 4, 2, 5, 2).sum((2, 4))
        np.testing.assert_array_equal(shown(part, [0], view), binned)
    np.testing.assert_array_equal(part.tilts, tilts)


def test_processes_read_their_part_each():
    """Two processes find together what one finds, each from half of the patterns."""
    barrier, parts = Barrier(2), {}

    def summed(number, values):
        parts[number] = values
        barrier.wait()
        return parts[0] + parts[1]

    def read(number):
        part = crop_detector(measured((12, 12)), (6, 6))
        shard = ProcessShard((number, 2), partial(summed, number))
        return part.subset([np.arange(20)], shard).dose(), parts[number][1:21]

    with ThreadPoolExecutor(2) as pool:
        (first, half), (second, other) = pool.map(read, range(2))
    one = crop_detector(measured((12, 12)), (6, 6)).dose()
    np.testing.assert_allclose(first, one)
    np.testing.assert_allclose(second, one)
    assert not half[10:].any()
    assert not other[:10].any()


def test_halves_of_the_quanta_are_those_of_the_sums():
    part = bin_detector(measured((12, 12)), 3)
    halves = [jp.thinned(part, half, seed=3) for half in range(2)]
    both = sum(half.patterns(0, [2]).astype(int) for half in halves)
    np.testing.assert_array_equal(both, part.patterns(0, [2]))


@pytest.mark.parametrize(
    ("change", "argument", "words"),
    [
        (crop_detector, [2, 2, 13, 9], "rows 2 to 13 and columns 2 to 9 are not within.*12 × 15"),
        (crop_detector, [14, 15], "are not within patterns of 12 × 15 pixels; give a window"),
        (crop_detector, [4], r"\[height, width\] is required"),
        (bin_detector, 7, r"5 × 1 remain; crop them to \[7, 14\] first"),
        (bin_detector, 0, "at least 1"),
        (pad_detector, [16, 14], "have 12 × 15 pixels already; give a larger"),
        (crop_scan, [[8, 8], [9, 9]], "holds none of the 20 shots, which extend over 0 to 3 Å"),
        (crop_scan, [[2, 2], [1, 1]], "lowest and the highest corner"),
    ],
)
def test_a_part_that_is_not_there_is_refused(change, argument, words):
    with pytest.raises(ValueError, match=words):
        change(measured(), argument)


def test_a_mask_that_touches_every_bin_is_refused():
    mask = np.indices((12, 15)).sum(0) % 2 > 0
    with pytest.raises(ValueError, match="the mask hides every pixel"):
        bin_detector(measured(mask=mask), 3)


def test_holograms_are_refused():
    data = measured(about={"effective_distance_angstrom": 500.0})
    with pytest.raises(ValueError, match="in-line hologram"):
        crop_detector(data, (6, 6))
