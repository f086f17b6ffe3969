"""Map of a scan: its parameters, positions, and what an affine job stores."""

import numpy as np
import pytest
from scans import ABOUT, GRID, blobs

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


# scale [parts], rotation [rad] that are reached, and not yet the 0.1 % and 0.1° of the Cramér–Rao bound at 10⁶ quanta
MAPS = {
    "4 % and 3°": ((1.04, 1.04), 0.0, 3.0, {"dose": 1e6}, 0.01, 0.15),
    "unequal, with shear": ((0.97, 1.02), 0.01, -2.0, {"dose": 1e6, "seed": 3}, 0.01, 0.15),
    "none": ((1.0, 1.0), 0.0, 0.0, {"dose": 1e6, "seed": 1}, 0.01, 0.15),
    "400 shots of few quanta": ((1.04, 1.04), 0.0, 3.0, {"dose": 2e4, "side": 20}, 0.025, 0.3),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MAPS)
def test_a_map_that_a_free_specimen_absorbs_is_found(name):
    scale, shear, degrees, scan, near, angle = MAPS[name]
    true = np.asarray(linear_map(scale, shear, np.deg2rad(degrees)))
    counts, places = blobs(**scan)
    middle = places.mean(0)
    data = Dataset(counts, (places - middle) @ np.linalg.inv(true).T + middle, GRID, about=ABOUT)
    said = []
    y, x, found_shear, turn = map_parameters(find_affine(data, first_model, say=said.append))
    np.testing.assert_allclose([y, x, found_shear], [*scale, shear], atol=near)
    np.testing.assert_allclose(np.rad2deg(turn), degrees, atol=angle)
    assert said[-1].startswith("map of the scan: scale")
