"""Map of a scan: its parameters, positions, and what an affine job stores."""

import numpy as np
import pytest

from jaxptycho import Dataset, Grid, first_model
from jaxptycho.parts.scan import linear_map, map_parameters
from jaxptycho.start.affine import find_affine, pivot, place_nominal


def dataset(counts):
    rng = np.random.default_rng(0)
    n = len(counts)
    return Dataset(counts, rng.uniform(0, 20, (n, 2)), Grid((8, 8), 0.5, 80.0), about={"semiangle_mrad": 20.0})


@pytest.mark.parametrize(
    ("scale", "shear", "rotation"), [((1.0, 1.0), 0.0, 0.0), ((1.04, 0.97), 0.02, 0.05), ((0.9, 1.1), -0.03, -0.2)]
)
def test_parameters_invert_the_linear_map(scale, shear, rotation):
    found = map_parameters(linear_map(scale, shear, rotation))
    np.testing.assert_allclose(found, [*scale, shear, rotation], atol=1e-6)


def test_positions_are_mapped_about_their_mean():
    data = dataset(np.full((12, 8, 8), 5, np.uint16))
    matrix = np.asarray(linear_map((1.1, 0.9), 0.0, 0.3))
    placed = place_nominal(data, matrix)
    np.testing.assert_allclose(pivot(placed), pivot(data))
    np.testing.assert_allclose(placed.positions[0] - pivot(data), (data.positions[0] - pivot(data)) @ matrix.T)


def test_too_few_patterns_are_refused():
    data = dataset(np.full((5, 8, 8), 5, np.uint16))
    with pytest.raises(ValueError, match="requires nine"):
        find_affine(data, first_model)
