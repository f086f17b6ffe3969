"""The course of the rates: what each held-out loss leads to, and the search for a rate."""

import math

import numpy as np
import pytest

from jaxptycho.runs.course import Course, advance, diverges, extended, restarted
from jaxptycho.runs.range_test import find_rate

START = Course({"specimen": 0.1}, True, first=10.0, best=10.0, gained=10.0)


def driven(losses, epochs=50, start=START):
    """The course after each of these losses, and the epochs that go back to the best model."""
    course, back = start, []
    for epoch, loss in enumerate(losses, 1):
        course, returns = advance(course, loss, epoch, epochs)
        back += [epoch] if returns else []
    return course, back


def test_rates_fall_once_the_loss_does_not_and_reach_zero():
    course, back = driven([5.0, 3.0, 2.5])
    assert (course.fall, course.best, course.best_epoch, back) == (0.0, 2.5, 3, [])
    course, back = driven([5.0, 3.0, 2.5, 2.6, 2.7])
    assert course.falling
    assert back == [5]
    length = round(course.level / course.fall)
    for epoch in range(6, 6 + length):
        assert not course.over
        course, _ = advance(course, 2.0, epoch, 50)
    assert course.over
    assert course.level == pytest.approx(0.0, abs=1e-9)


def test_the_rates_have_fallen_at_the_greatest_number_of_epochs():
    falling = [10.0 / (1 + n) for n in range(12)]
    course, _ = driven(falling, epochs=12)
    assert course.over
    assert course.best_epoch == 12


def test_small_gains_count_where_all_of_the_gain_is_small():
    start = START._replace(first=1000.0, best=1000.0, gained=1000.0)
    course, _ = driven([999.9, 999.8, 999.7, 999.6], start=start)
    assert not course.falling


def test_rates_by_hand_neither_fall_nor_end():
    course, back = driven([5.0, 6.0, 7.0, 8.0], start=START._replace(automatic=False))
    assert (course.best_epoch, course.level, course.over, back) == (1, 1.0, False, [])


def test_tied_slices_are_freed_once_the_loss_does_not_fall():
    start = START._replace(tied=True)
    course, back = driven([5.0, 3.0, 3.1, 3.2], start=start)
    assert (course.tied, course.falling, course.freed, back) == (False, False, 4, [4])
    gained, _ = driven([5.0, 3.0, 3.1, 3.2, 2.0, 2.1, 2.2], start=start)
    assert (gained.tied, gained.falling) == (False, True)
    useless, back = driven([5.0, 3.0, 3.1, 3.2, 3.3, 3.4], start=start)
    assert (useless.tied, useless.falling, useless.best, back) == (True, True, 3.0, [4, 6])


def test_a_divergence_is_a_rise_and_lowers_all_rates():
    assert diverges(START, math.nan)
    assert diverges(START, 100.0)
    assert not diverges(START, 11.0)
    assert restarted(START).level < 1


@pytest.mark.parametrize("best", [3e-3, 2e-2, 0.15])
def test_the_rate_of_least_loss_is_found(best):
    rate, tried = find_rate(lambda rate: abs(math.log(rate / best)))
    assert 1 / 1.5 < rate / best < 1.5
    assert len(tried) <= 6


def test_the_greatest_rate_of_enough_fall_is_taken():
    losses = {0.01: 50.0, 0.02: 52.0, 0.04: 58.0, 0.08: 90.0}
    assert find_rate(lambda rate: losses.get(rate, 100.0), 100.0)[0] == 0.01
    assert find_rate(lambda rate: losses.get(rate, 100.0), 100.0, 0.8)[0] == 0.04


@pytest.mark.parametrize("first", [0.3, 1e3 / 3, 83.646])
def test_the_rate_of_the_least_loss_is_found_whatever_its_rounding(first):
    for least in np.linspace(0.1, 0.29, 20):
        losses = {0.02: least, 0.04: 1.1 * least, 0.01: 1.1 * least}
        assert find_rate(losses.__getitem__, first)[0] == 0.02


def test_a_rate_below_all_that_diverge_is_found():
    assert find_rate(lambda rate: math.inf if rate > 1e-3 else 1 - rate)[0] <= 1e-3
    with pytest.raises(ValueError, match="no number after a few steps at any rate"):
        find_rate(lambda rate: math.inf)


def test_a_step_that_is_given_more_epochs_goes_on_at_full_rates():
    falling = [10.0 / (1 + n) for n in range(12)]
    over, _ = driven(falling, epochs=12)
    assert extended(over, 12) == over
    more = extended(over, 30)
    assert (more.over, more.falling, more.level, more.best) == (False, False, 1.0, over.best)
    course, _ = advance(more, 0.5, 13, 30)
    assert not course.falling
    lower = extended(restarted(over), 30)
    assert lower.level == 0.25
    by_hand, _ = driven(falling, epochs=12, start=START._replace(automatic=False))
    assert extended(by_hand, 30) == by_hand
