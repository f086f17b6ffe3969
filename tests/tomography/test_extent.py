"""Extent of particles of known shape, from noisy projections with free planes and shifts."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from jaxptycho.tomography.extent import particle_extent, vacuum_around
from jaxptycho.tomography.projections import Geometry

PIXEL = (0.5, 0.5)
SHAPE = (80, 100)
TILTS = np.deg2rad(np.arange(-60.0, 61.0, 10.0))
Y, X = ((np.arange(n) - n // 2) * p for n, p in zip(SHAPE, PIXEL, strict=True))


def cube(tilt, edge):
    """Path through a cube, whose edges are along y, and along x and z without a tilt."""
    c, s = np.cos(tilt), abs(np.sin(tilt))
    x = np.abs(X)
    outer, inner = edge / 2 * (c + s), edge / 2 * abs(c - s)
    longest = edge / max(c, s)
    slope = np.clip((outer - x) / max(outer - inner, 1e-9), 0, 1)
    return np.where(np.abs(Y)[:, None] <= edge / 2, longest * slope, 0)


def ball(tilt, radius):
    """Path through a ball."""
    return 2 * np.sqrt(np.maximum(radius**2 - Y[:, None] ** 2 - X**2, 0))


def seen(path, noise, rng, shifts):
    """Projections with noise, and a plane and a constant of each view."""
    one = []
    for tilt, (dy, dx) in zip(TILTS, shifts / PIXEL, strict=True):
        image = np.roll(path(tilt), (round(dy), round(dx)), (0, 1))
        plane = rng.normal(0, 20) + rng.normal(0, 0.1) * Y[:, None] + rng.normal(0, 0.1) * X
        one.append(10 * image + plane + noise * rng.normal(size=SHAPE))
    return np.stack(one), np.ones((len(TILTS), *SHAPE), bool)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("noise", [1.0, 30.0])
@pytest.mark.parametrize(("path", "size"), [(cube, (14.0, 14.0, 14.0)), (ball, (16.0, 16.0, 16.0))])
def test_a_particle_is_held_and_not_much_more(path, size, noise, seed):
    rng = np.random.default_rng(seed)
    shifts = 0.5 * rng.integers(-6, 7, (len(TILTS), 2))
    given = size[0] / 2 if path is ball else size[0]
    views, trusted = seen(lambda tilt: path(tilt, given), noise, rng, shifts)
    assert vacuum_around(views, trusted, PIXEL)
    found = np.array(particle_extent(views, trusted, Geometry(TILTS, None, shifts), PIXEL))
    assert (found >= np.array(size) - 1.5).all()  # a ball is thin near its rim
    assert (found[1:] <= np.array(size[1:]) + 3.0).all()
    assert found[0] <= 1.6 * size[0]  # the missing wedge


@pytest.mark.parametrize("seed", range(3))
def test_a_film_has_no_vacuum_around(seed):
    rng = np.random.default_rng(seed)
    views = 30 + 10 * gaussian_filter(rng.normal(size=(len(TILTS), *SHAPE)), (0, 2, 2))
    assert not vacuum_around(views, np.ones(views.shape, bool), PIXEL)


def test_pixels_that_are_not_trusted_do_not_count():
    rng = np.random.default_rng(0)
    shifts = np.zeros((len(TILTS), 2))
    views, trusted = seen(lambda tilt: cube(tilt, 14.0), 1.0, rng, shifts)
    trusted[:, :4] = False
    views[:, :4] = 1e4
    assert vacuum_around(views, trusted, PIXEL)
    found = np.array(particle_extent(views, trusted, Geometry(TILTS, None, shifts), PIXEL))
    np.testing.assert_allclose(found, 14.0, atol=3.0)
