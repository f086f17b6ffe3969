"""Map of a scan: its parameters, positions, and what an affine job stores."""

from dataclasses import replace
from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest
from models import thin
from scans import ABOUT, GRID, blobs

from jaxptycho import Dataset, Grid, PixelProbe, first_model
from jaxptycho.parts.scan import linear_map, map_parameters
from jaxptycho.start.affine import (
    INSIDE,
    MAX_FACTOR,
    SHOTS,
    SPACING,
    Settled,
    binned_patterns,
    find_affine,
    pivot,
    place_nominal,
    probe_radius,
    relaxed,
    scatter_of_searches,
    searches_agree,
    several_searches,
    spread_patterns,
)


def dataset(counts):
    rng = np.random.default_rng(0)
    n = len(counts)
    return Dataset(
        counts, rng.uniform(0, 20, (n, 2)), Grid((8, 8), 0.5, 80.0), about={"semiangle_mrad": 20.0}
    )


@pytest.mark.parametrize(
    ("scale", "shear", "rotation"),
    [((1.0, 1.0), 0.0, 0.0), ((1.04, 0.97), 0.02, 0.05), ((0.9, 1.1), -0.03, -0.2)],
)
def test_parameters_invert_the_linear_map(scale, shear, rotation):
    found = map_parameters(linear_map(scale, shear, rotation))
    np.testing.assert_allclose(found, [*scale, shear, rotation], atol=1e-6)


def test_positions_are_mapped_about_their_mean():
    data = dataset(np.full((12, 8, 8), 5, np.uint16))
    matrix = np.asarray(linear_map((1.1, 0.9), 0.0, 0.3))
    placed = place_nominal(data, matrix)
    np.testing.assert_allclose(pivot(placed), pivot(data))
    np.testing.assert_allclose(
        placed.positions[0] - pivot(data), (data.positions[0] - pivot(data)) @ matrix.T
    )


def test_too_few_patterns_are_refused():
    data = dataset(np.full((5, 8, 8), 5, np.uint16))
    with pytest.raises(ValueError, match="requires nine"):
        find_affine(data, first_model)


def test_a_relaxed_step_of_a_linear_iteration_is_the_last():
    first = np.array([0.02, -0.01, 0.005, 0.03])
    for rate in (0.9, 0.5, 0.25):  # fraction of the error that a step finds
        assert relaxed(1.0, first, (1 - rate) * first) == pytest.approx(1 / rate)
    assert relaxed(1.0, np.full(4, np.inf), first) == 1.0
    assert relaxed(1.0, first, 0.99 * first) == MAX_FACTOR


def test_patterns_are_spread_over_what_the_probe_reaches():
    rows = np.stack(np.meshgrid(*[np.arange(40.0)] * 2, indexing="ij"), -1).reshape(-1, 2)
    data = Dataset(np.full((1600, 8, 8), 5, np.uint8), rows, Grid((8, 8), 0.5, 80.0))
    wide = spread_patterns(data, 100.0).positions[0]
    assert len(wide) == SHOTS
    assert (np.ptp(wide, axis=0) > 36).all()
    narrow = spread_patterns(data, 4.0).positions[0]
    assert (np.ptp(narrow, axis=0) <= SPACING * 4.0 * np.sqrt(SHOTS)).all()


def test_the_radius_of_a_probe_holds_most_of_it():
    y, x = np.mgrid[-32:32, -32:32] * 0.5
    wave = np.exp(-(y**2 + x**2) / (2 * 3.0**2))[None]  # |ψ|² within r: 1 − exp(−r²/9)
    grid = Grid((64, 64), 0.5, 80.0)
    model = replace(thin(), probe=PixelProbe(jnp.asarray(wave, complex)), grid=grid)
    assert probe_radius(model) == pytest.approx(3 * np.sqrt(-np.log(1 - INSIDE)), abs=0.4)


def test_patterns_are_binned_as_far_as_the_probe_fits():
    counts = np.full((9, 32, 32), 5, np.uint16)
    data = Dataset(counts, np.arange(18.0).reshape(9, 2), Grid((32, 32), 0.5, 80.0))
    assert binned_patterns(data, 2.0).grid.shape == (16, 16)
    assert binned_patterns(data, 2.1).grid.shape == (32, 32)


SEARCHES = {  # scale and misfit at which searches end; scale that is taken, and whether they agree
    "both alike": ([(1.02, 5.0), (1.021, 5.1)], 1.02, True),
    "the second one better": ([(1.025, 6.0), (1.02, 5.0), (1.0205, 5.1)], 1.02, True),
    "the third one best": ([(1.025, 6.0), (1.02, 5.0), (1.03, 4.0)], 1.03, False),
    "all different": ([(1.025, 5.0), (1.02, 6.0), (1.01, 7.0)], 1.025, False),
}


@pytest.mark.parametrize("name", SEARCHES)
def test_the_map_of_least_misfit_is_taken(name, monkeypatch):
    ends, scale, alike = SEARCHES[name]
    left = iter(ends)
    begun = []

    def settled(model, data):
        begun.append(float(model.scan.matrix[0, 0]))
        found, misfit = next(left)
        scan = replace(model.scan, matrix=found * jnp.eye(2))
        return Settled(replace(model, scan=scan), 0.0, misfit)

    monkeypatch.setattr("jaxptycho.start.affine._settled", settled)
    counts = np.full((9, 8, 8), 5, np.uint16)
    data = Dataset(counts, np.arange(18.0).reshape(9, 2), Grid((8, 8), 0.5, 80.0))
    found = several_searches(thin(), data, jnp.eye(2), lambda text: None)
    assert found[0].matrix[0, 0] == pytest.approx(scale)
    assert searches_agree(found) == alike
    nearest = min(abs(found[0].matrix[0, 0] - end.matrix[0, 0]) for end in found[1:])
    np.testing.assert_allclose(
        scatter_of_searches(found), nearest * np.sqrt([0.5, 0.5, 0, 0]), atol=1e-6
    )
    assert begun[1] == pytest.approx(ends[0][0] ** 2)
    assert len(begun) == len(ends)


def errors(scale, shear, degrees, defocus=120.0, say=lambda text: None, **scan):
    """Errors of scales (y, x), shear [parts] and rotation [°] that `find_affine` makes on simulated blobs."""
    true = np.asarray(linear_map(scale, shear, np.deg2rad(degrees)))
    counts, places = blobs(defocus=defocus, **scan)
    nominal = (places - places.mean(0)) @ np.linalg.inv(true).T + places.mean(0)
    data = Dataset(counts, nominal, GRID, about=ABOUT | {"defocus_angstrom": defocus})
    phase = partial(first_model, specimen="phase")  # as a job of electrons takes it
    *found, turn = map_parameters(find_affine(data, phase, say=say))
    return np.subtract(found, [*scale, shear]), np.rad2deg(turn) - degrees


@pytest.mark.slow
def test_a_map_that_a_free_specimen_absorbs_is_found():
    said = []
    lengths, angle = errors((1.04, 1.04), 0.0, 3.0, dose=1e6, side=8, say=said.append)
    np.testing.assert_allclose(lengths, 0, atol=2e-3)
    np.testing.assert_allclose(angle, 0, atol=0.1)
    assert said[-1].startswith("map of the scan: scale 1.0")


# Twice the Cramér–Rao bound (specimen and probe free), at least 0.1 % and 0.1°. At 10⁶ quanta in
# each of 12 × 12 patterns it is 0.04 % of the scales, 0.06 % of the shear and 0.02°.
MAPS = {
    "4 % and 3°": ((1.04, 1.04), 0.0, 3.0, {"dose": 1e6}, 0.001, 0.1),
    "-3 % and -2°": ((0.97, 0.97), 0.0, -2.0, {"dose": 1e6, "seed": 1}, 0.001, 0.1),
    "unequal, with shear": ((1.03, 0.98), 0.02, 1.0, {"dose": 1e6, "seed": 2}, 0.001, 0.1),
    "another minimum of few epochs": ((1.02, 0.97), 0.015, 2.0, {"dose": 1e6}, 0.001, 0.1),
    "none": ((1.0, 1.0), 0.0, 0.0, {"dose": 1e6, "seed": 5}, 0.001, 0.1),
    "disordered lattice": (
        (1.04, 1.04),
        0.0,
        3.0,
        {"dose": 1e6, "seed": 3, "lattice": 13, "strength": 0.6},
        0.001,
        0.1,
    ),
    "more defocus": (
        (1.04, 1.04),
        0.0,
        3.0,
        {"dose": 1e6, "seed": 4, "defocus": 220.0},
        0.001,
        0.1,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MAPS)
def test_maps_are_found_to_a_part_in_a_thousand(name):
    scale, shear, degrees, scan, near, turn = MAPS[name]
    lengths, angle = errors(scale, shear, degrees, **scan)
    np.testing.assert_allclose(lengths, 0, atol=near)
    np.testing.assert_allclose(angle, 0, atol=turn)
