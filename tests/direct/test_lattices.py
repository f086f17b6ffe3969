"""Scan lattices of any orientation, positions off a lattice, and up-sampling."""

import jax.numpy as jnp
import numpy as np
import pytest
import sines

from jaxptycho import direct
from jaxptycho.direct.placement import OffGrid, OnGrid, off_grid
from jaxptycho.direct.scan_grid import plane_rotation

pytestmark = pytest.mark.usefixtures("quick_to_compile")


def lattice(angle, shape=(9, 13), steps=(1.3, 2.0), shear=0.0):
    rows = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1).reshape(-1, 2)
    matrix = np.diag(steps) @ np.array([[1, shear], [0, 1]]) @ plane_rotation(angle)
    return rows, rows @ matrix + [40.0, -7.0], matrix


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("degrees", [0.0, 5.0, 31.0, -126.0, 90.0])
def test_lattices_are_recognised(degrees, seed):
    rng = np.random.default_rng(seed)
    _, places, _ = lattice(np.deg2rad(degrees), shear=0.05 * seed)
    order = rng.permutation(len(places))[: len(places) - 4 * seed]
    found = places[order] + rng.normal(0, 0.01, (len(order), 2))
    grid, entries = direct.fit_grid(found)
    np.testing.assert_allclose(grid.origin + entries @ grid.steps, found, atol=0.06)
    assert entries.min() == 0
    assert sorted(grid.shape) == [9, 13]
    assert grid.area == pytest.approx(2.6, rel=0.02)


def test_a_long_scan_with_a_slightly_wrong_first_step_is_counted_right():
    _, places, _ = lattice(0.3, (3, 400), (1.0, 1.0))
    places = places + np.random.default_rng(0).normal(0, 0.02, places.shape)
    assert sorted(direct.fit_grid(places)[0].shape) == [3, 400]


@pytest.mark.parametrize(
    ("places", "words"),
    [
        (np.random.default_rng(0).uniform(0, 9, (60, 2)), "off a regular scan grid|fill a scan"),
        (np.c_[np.arange(9.0), np.arange(9.0)], "on a line"),
        (np.zeros((9, 2)), "equal"),
        (np.zeros((2, 2)), "at least 4"),
        (np.repeat(sines.positions(3), 2, 0) + 0.0, "several shots"),
    ],
)
def test_other_positions_form_no_lattice(places, words):
    with pytest.raises(ValueError, match=words):
        direct.fit_grid(places)


@pytest.mark.parametrize("upsample", [1, 2])
@pytest.mark.parametrize("shape", [(8, 12), (9, 7)])
def test_transform_is_the_sum_over_the_shots(shape, upsample):
    _, places, _ = lattice(0.4, shape)
    values = np.random.default_rng(1).normal(size=(len(places), 2))
    placement = direct.place(places, upsample=upsample)
    assert isinstance(placement, OnGrid)
    q = placement.grid.frequencies()
    waves = np.exp(-2j * np.pi * (places - placement.grid.origin) @ np.moveaxis(q, -1, -2))
    expected = upsample**2 * np.einsum("ysp,sk->kyp", waves, values)
    np.testing.assert_allclose(placement.transform(jnp.asarray(values)), expected, atol=1e-9)


@pytest.mark.parametrize("seed", range(2))
def test_transform_of_any_positions_is_the_sum_over_the_shots(seed):
    places = np.random.default_rng(seed).uniform(0, 12, (90, 2))
    values = np.random.default_rng(seed + 9).normal(size=(len(places), 2))
    placement = direct.place(places)
    assert isinstance(placement, OffGrid)
    q = placement.grid.frequencies()
    waves = np.exp(-2j * np.pi * (places - placement.grid.origin) @ np.moveaxis(q, -1, -2))
    expected = np.einsum("ysp,sk->kyp", waves, values)
    error = np.abs(placement.transform(jnp.asarray(values)) - expected).max()
    assert error < 1e-5 * np.abs(expected).max()


def test_off_the_grid_equals_on_the_grid():
    lens, places, q = sines.optics(defocus=150.0), sines.positions(), (1, 2)
    stack = sines.stack(sines.patterns(lens, q, places), places)
    on, off = direct.place(places), off_grid(places, np.ones(len(places), bool))
    pictures = [direct.matched_filter(stack, p, lens).image for p in (on, off)]
    np.testing.assert_allclose(*pictures, atol=2e-5 * np.abs(pictures[0]).max())


@pytest.mark.parametrize("degrees", [5.0, -126.0])
def test_a_rotated_scan_shows_the_same_specimen(degrees):
    """Scanning along a rotated lattice transfers a sine as theory says, without resampling."""
    lens, q = sines.optics(defocus=150.0), np.array([1, 2])
    turn = plane_rotation(np.deg2rad(degrees))
    places = sines.positions(24) @ turn
    stack = sines.stack(sines.patterns(lens, q, places), places)
    placement = direct.place(places, taper=4)
    picture = direct.matched_filter(stack, placement, lens)
    middle = (slice(7, -7),) * 2
    truth = sines.phase(q, placement.grid.places())
    r = np.corrcoef(picture.image[middle].ravel(), truth[middle].ravel())[0, 1]
    assert r > 0.97


@pytest.mark.parametrize("method", [direct.matched_filter, direct.parallax])
def test_upsampling_resolves_beyond_the_scan(method):
    """A period of 2.4 Å scanned at 2 Å, against the picture of a scan at 1 Å."""
    lens, q = sines.optics(defocus=150.0), (0, 5)
    coarse, fine = sines.positions(6, 2.0), sines.positions()
    stacks = [sines.stack(sines.patterns(lens, q, p), p) for p in (coarse, fine)]
    pictures = [
        method(s, direct.place(p, upsample=u), lens)
        for s, p, u in zip(stacks, (coarse, fine), (2, 1), strict=True)
    ]
    assert pictures[0].image.shape == pictures[1].image.shape
    found, stated = sines.measured(pictures[0], q)
    assert abs(found - stated) < 0.1 * abs(stated)
    truth = sines.phase(q, pictures[0].grid.places())
    assert np.corrcoef(pictures[0].image.ravel(), truth.ravel())[0, 1] > 0.8


def test_deposited_parallax_shows_the_specimen():
    lens, q = sines.optics(defocus=-150.0), (0, 2)
    places = sines.positions(24)
    places = places + np.random.default_rng(0).uniform(-0.3, 0.3, places.shape)
    counts = sines.patterns(lens, q, places)
    grid = direct.montage_grid(places, lens, 0.7)
    stack = sines.stack(counts / counts.max() * 1e4, places)
    picture = direct.deposited_parallax(stack, grid, lens)
    inside = np.all(np.abs(grid.places() - 11.5) < 6, axis=-1)
    # the contrast of 1e-6 rad drowns in the shares of a coarse scan: their mean is subtracted
    empty = sines.patterns(lens, q, places) * 0 + counts.mean(0)
    flat = direct.deposited_parallax(sines.stack(empty / counts.max() * 1e4, places), grid, lens)
    signal = (picture.image - flat.image)[inside]
    assert np.corrcoef(signal, sines.phase(q, grid.places())[inside])[0, 1] > 0.9


def test_a_change_of_defocus_moves_the_deposit():
    lens, places = sines.optics(defocus=150.0), sines.positions()
    other = sines.optics(defocus=130.0)
    stack = sines.stack(sines.patterns(lens, (1, 2), places), places)
    grid = direct.montage_grid(places, lens, 0.7)
    changed = direct.deposited_parallax(stack, grid, other, defocus_change=np.full(144, 20.0))
    np.testing.assert_allclose(
        np.abs(changed.spectrum),
        np.abs(direct.deposited_parallax(stack, grid, lens).spectrum),
        atol=1e-2,
    )
