"""Shots whose recorded positions are far from the true ones."""

from functools import partial

import numpy as np
import pytest
from scans import ABOUT, GRID, blob_model, blobs, measured_blobs

import jaxptycho as jp
from jaxptycho.model import probe_positions
from jaxptycho.start.position_search import (
    best_places,
    find_positions,
    grid_within,
    largest_error,
    misfits,
)


@pytest.fixture(scope="module")
def scan():
    """A model of blobs, its true positions, and its patterns."""
    true = blob_model(side=7, dose=1e5)
    places = probe_positions(true)
    return true, places, measured_blobs(true, places, seed=0)


def test_misfits_are_least_at_the_true_places(scan):
    true, places, data = scan
    shots = np.array([10, 24, 31])
    tried = places[shots] + grid_within(1.2, true.grid.pixel[0])[:, None]
    found = misfits(true, data, shots, tried)
    wrong = places[shots] + [0.6, -0.9]
    best = best_places(found, tried, wrong, error=1.0)
    np.testing.assert_allclose(best, places[shots], atol=1e-4)


def test_a_place_far_from_the_recorded_one_must_be_much_better():
    places = np.array([[[0.0, 0.0]], [[3.0, 0.0]]])
    recorded = np.zeros((1, 2))
    alike = np.array([[1.05], [1.0]])
    better = np.array([[2.0], [1.0]])
    assert best_places(alike, places, recorded, 1.0)[0, 0] == 0
    assert best_places(better, places, recorded, 1.0)[0, 0] == 3
    assert best_places(alike, places, recorded, 3.0)[0, 0] == 3


def test_few_shots_are_refused(scan):
    data = scan[2].subset(np.arange(16))
    with pytest.raises(ValueError, match="16 shots"):
        find_positions(data, jp.first_model, 1.0)


@pytest.mark.slow
def test_right_positions_are_kept(scan):
    data = scan[2]
    first = partial(jp.first_model, margin=8.0, specimen="phase")
    said = []
    error = largest_error(first(data))
    assert find_positions(data, first, error, said.append, measured=True) is None
    assert 2 <= len(said) <= 6


@pytest.mark.slow
@pytest.mark.parametrize("measured", [False, True])
@pytest.mark.filterwarnings("ignore:one electron makes")  # neighbours at wrong places differ
def test_errors_of_three_pixels_are_found(measured):
    counts, places = blobs(side=10, dose=1e5, seed=0)
    pixel = GRID.pixel[0]
    wrong = places + np.random.default_rng(11).normal(0, 3 * pixel, places.shape)
    data = jp.Dataset(counts, wrong, GRID, about=ABOUT, frame=(0.0, 0.0))
    first = partial(jp.first_model, margin=15.0, specimen="phase")
    said = []
    error = largest_error(first(data)) if measured else 3 * pixel
    found = find_positions(data, first, error, said.append, measured=measured)
    assert found is not None
    columns = np.c_[found, np.ones(len(found))]
    away = columns @ np.linalg.lstsq(columns, places, rcond=None)[0] - places
    assert np.median(np.hypot(*away.T)) < 0.4 * pixel
    assert said[0].startswith("search 1 for positions")
