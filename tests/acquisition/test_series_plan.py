"""Order of tilts and targets, and forecast of their times."""

import numpy as np
import pytest

from jaxptycho.acquisition import read_tilt_log
from jaxptycho.acquisition.plan import SECONDS_PER_RADIAN, Forecast, Plan, Times, dose_symmetric


def test_groups_of_two_are_those_of_a_recorded_series(data_dir):
    log = read_tilt_log(data_dir("tilt_logs/mdocfile_EMPIAR10164_TS_01.mdoc"))
    recorded = np.round(np.rad2deg(log.angle) / 3) * 3
    assert dose_symmetric(0, -60, 60, 3).tolist() == recorded.tolist()


def test_sides_of_another_length_and_groups():
    assert dose_symmetric(0, -2, 4, 1, 1).tolist() == [0, -1, 1, -2, 2, 3, 4]
    assert dose_symmetric(10, 4, 19, 3, 3).tolist() == [10, 13, 16, 7, 4, 19]
    with pytest.raises(ValueError, match="lowest ≤ start ≤ highest"):
        dose_symmetric(9, -3, 3, 1)


def test_the_tracked_target_is_first_then_by_image_shift():
    targets = np.array([[0.0, 0], [5e4, 0], [0, 2e4], [-3e4, 3e4]])
    plan = Plan(np.deg2rad([0.0, 3, -3]), targets, 20.0, 10.0)
    assert plan.order == [0, 2, 3, 1]
    assert plan.branch.tolist() == [False, False, True]
    np.testing.assert_allclose(plan.exposures().delay[:, 0], [20, 50, 30, 40])
    assert plan.beyond(4.5e4) == [1]


def test_times_are_learned_from_what_was_measured():
    times = Times(30.0, 15.0, 1.0, 10.0, 10.0)
    assert times.expected(2, 1.0) == pytest.approx(70.0)
    for way in (0.1, 0.5, 1.0, 1.5):
        times = times.add(22.0 + 4.0 * way, 1, way)
    assert times.expected(1, 2.0) == pytest.approx(30.0, rel=0.01)
    once = Times(13.0, 6.0, 1.0).add(10.0)
    assert once.expected(10) == pytest.approx(100.0, rel=0.02)


def test_a_forecast_counts_ways_of_the_stage_and_exposures():
    plan = Plan(np.deg2rad([0.0, 3, -3]), np.zeros((2, 2)), 20.0, 10.0)
    ways = np.deg2rad(3 + (6 + 2 * 3))  # the second one from below
    expected = 3 * 20 / 4 + 2 * 20 / 2 + SECONDS_PER_RADIAN * ways + 6 * 10
    left = Forecast.of(plan).remaining(0.0, plan.angles[1:], 2, 6)
    assert left == pytest.approx(expected)
