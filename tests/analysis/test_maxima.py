"""Maxima of periodic arrays beside closed forms; those of images are in `test_atoms`."""

import numpy as np
import pytest

from jaxptycho.analysis.maxima import between_pixels, brightest, highest_lag


@pytest.mark.parametrize("offset", [(0.0, 0.0), (-0.4, 0.3), (-5.2, 3.45)])
def test_a_paraboloid_is_met_between_pixels(offset):
    """Also across the edge of the period."""
    y, x = (np.fft.fftfreq(n, 1 / n) for n in (12, 15))
    values = -((y[:, None] - offset[0]) ** 2) - 2 * (x - offset[1]) ** 2
    lag = highest_lag(values)
    np.testing.assert_allclose(lag + between_pixels(values, lag), offset, atol=1e-12)


def test_beside_a_value_that_is_missing_the_pixel_stays():
    values = np.array([[3.0, 2.0, 0.0], [-np.inf, 0.0, 0.0], [2.5, 0.0, 0.0]])
    lag = highest_lag(values)
    assert lag.tolist() == [0, 0]
    assert between_pixels(values, lag).tolist() == [0, 0.25]


def test_a_maximum_across_the_edge_of_a_period_counts_once():
    values = np.array([5.0, 1.0, 0.0, 2.0, 0.0, 4.0])
    everywhere = np.ones(6, bool)
    assert brightest(values, everywhere, periodic=True).tolist() == [[0], [3]]
    assert brightest(values, everywhere).tolist() == [[0], [5], [3]]
