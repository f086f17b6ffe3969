"""A measured quantity in words."""

import math

import pytest

from jaxptycho.start.measured import Measured


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        (135.93, 1.52, "135.9 ± 1.5 Å ← likelihood"),
        (137912.0, 712.0, "137912 ± 712 Å ← likelihood"),
        (0.99561, 0.00149, "0.9956 ± 0.0015 Å ← likelihood"),
        (12.0, 0.0996, "12.00 ± 0.10 Å ← likelihood"),
        (24.86612, math.nan, "24.866 Å ← likelihood"),
    ],
)
def test_measured_shows_two_figures_of_its_error(value, error, words):
    assert str(Measured(value, error, "Å", "likelihood")) == words
