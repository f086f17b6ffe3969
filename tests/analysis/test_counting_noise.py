"""Moments of amplitudes of Poisson counts, and the estimate of their noise from counts alone."""

import numpy as np
import pytest
from scipy.stats import poisson

from jaxptycho.analysis.counting_noise import amplitude_moments, noise_of_counts

COUNTS = np.arange(400)


def moments(mean):
    weights = poisson.pmf(COUNTS, mean)
    amplitude = weights @ np.sqrt(COUNTS)
    return amplitude, mean - amplitude**2


@pytest.mark.parametrize(
    "mean", [1e-3, 0.05, 0.3, 1.0, 2.0, 4.0, 7.0, 10.0, 15.0, 25.0, 60.0, 200.0]
)
def test_moments_and_their_estimate(mean):
    amplitude, variance = moments(mean)
    found = amplitude_moments(mean)
    assert found[0] == pytest.approx(amplitude, rel=2e-3)
    assert found[1] == pytest.approx(variance, rel=1e-2)
    estimate = poisson.pmf(COUNTS, mean) @ np.asarray(noise_of_counts(COUNTS))
    assert estimate == pytest.approx(variance, rel=1e-2)


@pytest.mark.parametrize("mean", [0.1, 1.0, 5.0])
def test_noise_of_counts_whose_means_differ_has_no_bias(mean):
    """Unlike the variance at their common mean, which is too large."""
    means = np.random.default_rng(0).gamma(0.5, mean / 0.5, 200000)
    counts = np.random.default_rng(1).poisson(means)
    truth = float(np.mean(amplitude_moments(means)[1]))
    assert float(np.mean(noise_of_counts(counts))) == pytest.approx(truth, rel=0.02)
    assert amplitude_moments(mean)[1] > 1.05 * truth


def test_no_counts_have_no_noise():
    assert noise_of_counts(0.0) == 0
    assert amplitude_moments(0.0) == (0, 0)
