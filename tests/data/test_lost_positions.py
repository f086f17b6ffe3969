"""Shots without a position, values that no detector counts, axes in another order."""

import numpy as np
import pytest
from scans import ABOUT, GRID, blobs

import jaxptycho as jp
from jaxptycho.start.calibrate import calibrate
from jaxptycho.start.calibration import bright_field_semiangle
from jaxptycho.start.cautions import cautions


@pytest.fixture(scope="module")
def sound():
    return blobs()


def dataset(counts, places, **more):
    return jp.Dataset(counts, places, GRID, about=ABOUT, **more)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_shots_without_a_position_are_left_out(value, sound):
    counts, places = sound
    places = places.copy()
    places[[7, 50], [1, 0]] = value
    with pytest.warns(UserWarning, match="left out 2 of 144 shots .*position .*first: shot 7"):
        data = dataset(counts, places + 1e8)
    np.testing.assert_array_equal(data.shots[0], np.delete(np.arange(144), [7, 50]))
    np.testing.assert_allclose(np.ptp(data.positions[0], axis=0), 23.1)
    with pytest.raises(ValueError, match="position of shot 7 is"):
        dataset(counts, places, bad_data="keep")


@pytest.mark.parametrize("every", [1, 2, 5])
def test_too_many_lost_positions_are_refused(every, sound):
    counts, places = sound
    places = places.copy()
    places[::every] = np.nan
    with pytest.raises(ValueError, match=r"position of shot 0 is .nan nan., and so are .* of 144"):
        dataset(counts, places)


@pytest.mark.parametrize("counts", [0, 2**40])
def test_counts_that_are_all_none_are_refused_in_one_sentence(counts):
    patterns = np.full((16, 8, 8), counts, np.int64)
    places = np.argwhere(np.ones((4, 4)))
    with pytest.raises(ValueError, match=r"hold no counts|larger than 32 bits hold"):
        jp.Dataset(patterns, places, jp.Grid((8, 8), 0.5, 80.0))


def test_spikes_are_counted_without_wild_patterns(sound):
    """A fifth of the patterns has a spike, of which most are wild as a whole."""
    counts, places = sound
    rng = np.random.default_rng(3)
    counts = counts.astype(np.uint32)
    bad = np.sort(rng.choice(144, 29, replace=False))
    heights = np.where(np.arange(29) < 24, 50_000, 5_000)
    counts[bad, rng.integers(0, 48, 29), rng.integers(0, 48, 29)] = heights
    with (
        pytest.warns(UserWarning, match="left out 19 of 144 shots with counts unlike"),
        pytest.warns(UserWarning, match="left out 10 of 125 shots with a spike"),
    ):
        data = dataset(counts, places)
    np.testing.assert_array_equal(data.shots[0], np.delete(np.arange(144), bad))
    assert cautions(data) == []


@pytest.mark.parametrize("row", [24, 5])
def test_a_line_that_is_stuck_is_masked(row, sound):
    counts, places = sound
    counts = counts.copy()
    counts[:, row : row + 2] = 7
    with pytest.warns(UserWarning, match=rf"masked 96 pixels \(rows {row} to {row + 1}\) stuck"):
        data = dataset(counts, places)
    assert data.mask is not None
    assert (~data.mask).sum() == 96
    assert cautions(data) == []


def test_a_masked_pixel_does_not_change_the_disc(sound):
    counts, places = sound
    spoiled = counts.copy()
    spoiled[::2, 24, 20] = 60_000
    with pytest.warns(UserWarning, match="masked 1 pixel"):
        data = dataset(spoiled, places)
    angle = bright_field_semiangle(dataset(counts, places))
    assert bright_field_semiangle(data) == pytest.approx(angle, rel=5e-3)


def test_counts_cut_at_a_threshold_are_no_counts(sound):
    counts, places = sound
    data = dataset(counts > 20, places)
    assert [caution.key for caution in cautions(data)] == ["data.file"]
    with pytest.raises(ValueError, match="have the same number in all patterns"):
        calibrate(data)


@pytest.mark.parametrize("order", [(1, 2, 0), (2, 1, 0)])
def test_patterns_with_the_axes_of_the_detector_first(order, sound):
    counts, places = sound
    moved = counts.transpose(order)
    with pytest.raises(ValueError, match="are the axes of the scan last"):
        jp.Dataset(moved, places, jp.Grid(moved.shape[1:], 0.3, 80.0))
