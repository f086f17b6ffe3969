"""Halves of a measurement: each shot or each quantum in one of them, and nothing in both."""

import numpy as np
import pytest
from scipy.spatial import KDTree

import jaxptycho.data.dataset
from jaxptycho import Dataset, Grid, checkerboard, thinned
from jaxptycho.data.ordering import spread

GRID = Grid((6, 4), 0.5, 80.0)


def counts_of(n, mean=20, dtype=np.uint16, seed=0):
    return np.random.default_rng(seed).poisson(mean, (n, *GRID.shape)).astype(dtype)


def raster(ny, nx, angle=0.3):
    y, x = (a.ravel() * 2.0 for a in np.mgrid[:ny, :nx])
    return np.stack(
        [y * np.cos(angle) - x * np.sin(angle), y * np.sin(angle) + x * np.cos(angle)], -1
    )


@pytest.mark.parametrize(("ny", "nx", "angle"), [(8, 8, 0.0), (7, 5, 0.3), (6, 9, -2.2)])
def test_halves_of_a_raster_are_a_checkerboard(ny, nx, angle):
    data = Dataset(counts_of(ny * nx), raster(ny, nx, angle), GRID)
    (black,), (white,) = checkerboard(data)
    colour = np.add(*np.mgrid[:ny, :nx]).ravel() % 2
    halves = {tuple(black), tuple(white)}
    assert halves == {tuple(np.flatnonzero(colour == 0)), tuple(np.flatnonzero(colour == 1))}


def test_halves_of_an_irregular_scan_are_interleaved():
    positions = np.random.default_rng(2).uniform(0, 100, (400, 2))
    positions[7] = positions[300]  # a shot taken twice
    (black,), (white,) = checkerboard(Dataset(counts_of(400), positions, GRID))
    assert sorted([*black, *white]) == list(range(400))
    assert 160 < len(black) < 240
    apart = np.linalg.norm(positions[:, None] - positions, axis=-1) + np.diag(np.full(400, np.inf))
    mine = np.isin(np.arange(400), black)
    assert (mine != mine[apart.argmin(1)]).all()  # nearest neighbours lie in different halves


def whole(n=200, **changes):
    return Dataset(
        **({"counts": counts_of(n), "positions": raster(n // 10, 10), "grid": GRID} | changes)
    )


@pytest.mark.parametrize("dtype", ["u1", ">u2", "i4", "u4", "i8", "u8", "?"])
def test_thinned_halves_add_up_to_the_whole(dtype):
    mask = np.ones(GRID.shape, bool)
    mask[2, 1] = False
    mean = 3 if dtype == "?" else 20
    data = whole(counts=counts_of(200, mean, dtype), mask=mask, about={"semiangle_mrad": 20.0})
    first, second = (thinned(data, half) for half in (0, 1))
    shots = np.array([150, 3, 3, 77])
    together = first.patterns(0, shots).astype(int) + second.patterns(0, shots)
    np.testing.assert_array_equal(together, data.patterns(0, shots))
    assert first.dose().sum() == pytest.approx(second.dose().sum(), rel=0.1)
    assert np.issubdtype(first.patterns(0, shots).dtype, np.integer)
    np.testing.assert_array_equal(first.positions[0], data.positions[0])
    assert first.about == data.about


def test_thinned_poisson_counts_are_poisson_and_independent():
    data = whole(2000)
    first, second = (
        thinned(data, half).patterns(0, np.arange(2000)).astype(float) for half in (0, 1)
    )
    error = 1 / np.sqrt(first.size)
    for half in (first, second):
        assert half.mean() == pytest.approx(10, abs=4 * error * np.sqrt(10))
        assert half.var() == pytest.approx(10, abs=4 * error * np.sqrt(2) * 10)
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 4 * error
    per_pixel = [
        np.corrcoef(first[:, y, x], first[:, 0, 0])[0, 1] for y, x in ((0, 1), (3, 2), (5, 3))
    ]
    assert np.abs(per_pixel).max() < 4 / np.sqrt(2000)  # no draw is used twice
    assert abs(np.corrcoef(first[:-1].ravel(), first[1:].ravel())[0, 1]) < 4 * error


@pytest.mark.parametrize("limit", [0, 2**30])
def test_quanta_are_drawn_by_view_and_shot_however_they_are_read(monkeypatch, limit):
    monkeypatch.setattr(jaxptycho.data.dataset, "IN_MEMORY_BYTES", limit)
    counts = counts_of(100)
    data = Dataset([counts, counts], [raster(10, 10)] * 2, GRID)
    half = thinned(data, 0)
    assert (half._clean[0]._kept is not None) == (limit > 0)
    one_by_one = np.concatenate([half.patterns(1, [shot]) for shot in (70, 2, 41)])
    np.testing.assert_array_equal(one_by_one, half.patterns(1, [70, 2, 41]))
    np.testing.assert_array_equal(one_by_one, thinned(data, 0).patterns(1, [70, 2, 41]))
    assert (half.patterns(0, [2]) != half.patterns(1, [2])).any()  # views are drawn apart
    assert (half.patterns(0, [2]) != thinned(data, 0, seed=1).patterns(0, [2])).any()
    np.testing.assert_array_equal(
        half.subset([[5, 9], [4]]).patterns(0, [1]), half.patterns(0, [9])
    )


def test_only_whole_quanta_are_drawn():
    scaled = counts_of(200).astype(np.float32)
    scaled[130, 2, 1] += 0.5
    with pytest.raises(
        ValueError, match=r"no whole numbers \(first: .*\.5 in shot 130 of view 0\)"
    ):
        thinned(whole(counts=scaled), 0)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, ">f8"])
def test_floats_that_are_whole_are_thinned_as_integers_are(dtype):
    of_integers, of_floats = (
        thinned(whole(counts=counts_of(200, dtype=kind))) for kind in (np.uint16, dtype)
    )
    shots = np.arange(200)
    np.testing.assert_array_equal(of_floats.patterns(0, shots), of_integers.patterns(0, shots))


def test_a_fraction_of_the_quanta_and_the_rest_make_the_whole():
    data = whole()
    few, rest = (thinned(data, half, fraction=0.05) for half in (0, 1))
    assert few.dose().sum() == pytest.approx(0.05 * data.dose().sum(), rel=0.05)
    np.testing.assert_allclose(few.dose() + rest.dose(), data.dose())


@pytest.mark.parametrize("fraction", [0.7, 1 / 12])
def test_a_part_of_the_scan_leaves_smaller_holes_than_one_drawn_by_lot(fraction):
    positions = raster(40, 40)
    chosen = spread(positions, fraction, seed=3)
    assert len(set(chosen)) == len(chosen) == round(fraction * 1600)
    np.testing.assert_array_equal(chosen, np.sort(chosen))
    lots = [np.random.default_rng(n).permutation(1600)[: len(chosen)] for n in range(5)]
    holes = [KDTree(positions[some]).query(positions)[0].max() for some in (chosen, *lots)]
    assert holes[0] < min(holes[1:]) + 1e-9
    np.testing.assert_array_equal(spread(positions, 1.0), np.arange(1600))
