"""Which of two fits of the optics the images exclude."""

import numpy as np
import pytest

from jaxptycho.start.optics_fit import BASE, OpticsFit, excludes
from jaxptycho.start.sidebands import Sidebands
from jaxptycho.start.weak_object_likelihood import NAMES

FREQUENCIES = 400


def fit_of(each):
    """Fit with the ln L of every frequency."""
    zeros = np.zeros(FREQUENCIES)
    ring = zeros.astype(int)
    q = np.zeros((FREQUENCIES, 2))
    g = np.zeros((1, FREQUENCIES), complex)
    one = np.ones(1)
    bands = Sidebands(g, q[:1], one, q, zeros + 1, zeros, ring, one[0], one[0], one[0])
    theta = np.zeros(len(NAMES) + 1)
    return OpticsFit(theta, np.eye(2), BASE, theta, bands, np.ones(16), each, q)


@pytest.mark.parametrize("seed", range(3))
def test_a_fit_that_most_frequencies_prefer_excludes_others(seed):
    rng = np.random.default_rng(seed)
    first = fit_of(rng.normal(0.5, 1.0, FREQUENCIES))
    second = fit_of(rng.normal(0.0, 1.0, FREQUENCIES))
    assert excludes(first, second, 3.0)
    assert not excludes(second, first, 3.0)
    assert not excludes(first, first, 3.0)


def test_a_few_reflections_against_all_other_frequencies_exclude_nothing():
    reflections = np.where(np.arange(FREQUENCIES) < 20, 30.0, -0.3)
    assert reflections.sum() > 3 * np.sqrt(FREQUENCIES) * reflections.std()
    first = fit_of(reflections)
    second = fit_of(np.zeros(FREQUENCIES))
    assert not excludes(first, second, 3.0)
