"""Slices that bias the phase of atomic columns by no more than about a hundredth."""

import numpy as np
import pytest

import jaxptycho as jp
from jaxptycho.physics.grids import Grid
from jaxptycho.start.guess import guess_model
from jaxptycho.start.slicing import beyond_focus, fitting_slices, slice_limit


def grid(voltage: float, pixel: float) -> Grid:
    return Grid((64, 64), (pixel, pixel), voltage)


@pytest.mark.parametrize(("voltage", "limit"), [(300.0, 6.06), (200.0, 4.76), (80.0, 2.86)])
def test_slices_are_as_thin_as_the_wavelength_requires(voltage, limit):
    assert slice_limit(grid(voltage, 0.15)) == pytest.approx(limit, rel=1e-2)
    assert fitting_slices(10 * limit, grid(voltage, 0.15)) in (10, 11)


def test_a_camera_that_reaches_less_far_allows_thicker_slices():
    assert slice_limit(grid(300.0, 2.0)) == pytest.approx(64 * slice_limit(grid(300.0, 0.25)))


def test_an_unknown_thickness_is_one_slice():
    assert fitting_slices(None, grid(300.0, 0.2)) == 1
    assert fitting_slices(1.0, grid(300.0, 0.2)) == 1


def test_a_specimen_thicker_than_the_depth_of_field_is_given_a_tilt():
    one = grid(300.0, 0.2)
    depth = one.wavelength / 0.02**2
    assert beyond_focus(1.01 * depth, one, 0.02)
    assert not any(beyond_focus(*case) for case in [(0.99 * depth, one, 0.02), (None, one, 0.02)])
    places = np.arange(8.0).reshape(4, 2)
    data = jp.Dataset(np.ones((4, *one.shape)), places, one, about={"semiangle_mrad": 20.0})
    thick = guess_model(data, thickness=2 * depth)
    np.testing.assert_array_equal(thick.propagator.angles, [0, 0])
    assert isinstance(guess_model(data, thickness=0.5 * depth).propagator, jp.Fresnel)
