import numpy as np
import pytest

from jaxptycho import Grid
from jaxptycho.physics.grids import electron_wavelength, interaction_constant


@pytest.mark.parametrize(
    ("voltage", "wavelength", "sigma"),
    [(80.0, 0.04176, 1.0088e-3), (200.0, 0.02508, 7.2884e-4), (300.0, 0.01969, 6.5262e-4)],
)
def test_beam_constants_are_those_of_the_tables(voltage, wavelength, sigma):
    assert electron_wavelength(voltage) == pytest.approx(wavelength, abs=5e-6)
    assert interaction_constant(voltage) == pytest.approx(sigma, rel=1e-4)


def test_slow_electrons_follow_de_broglie():
    assert electron_wavelength(0.1) == pytest.approx(12.2643 / np.sqrt(100), rel=1e-4)


def test_rectangular_grid_has_its_own_step_in_each_direction():
    grid = Grid((16, 10), (0.5, 0.25), wavelength=1.0)
    ky, kx = grid.frequencies()
    assert grid.dk == pytest.approx((1 / 8, 1 / 2.5))
    assert ky.shape == (16, 1)
    assert kx.shape == (1, 10)
    np.testing.assert_allclose([ky[1, 0], kx[0, 1]], grid.dk)
    np.testing.assert_allclose([ky[8, 0], kx[0, 5]], [-1.0, -2.0])  # Nyquist
    np.testing.assert_allclose(grid.k2()[3, 9], (3 / 8) ** 2 + (1 / 2.5) ** 2)


def test_one_pixel_size_serves_both_directions():
    assert Grid((4, 6), 0.2, voltage_kv=80).pixel == (0.2, 0.2)


def test_photons_have_no_interaction_constant():
    with pytest.raises(ValueError, match="voltage_kv"):
        _ = Grid((4, 4), 1.0, wavelength=1.5).sigma


@pytest.mark.parametrize("beam", [{}, {"voltage_kv": 80.0, "wavelength": 0.04}])
def test_exactly_one_of_voltage_and_wavelength(beam):
    with pytest.raises(ValueError, match="one of them"):
        Grid((4, 4), 1.0, **beam)


@pytest.mark.parametrize("bad", [{"pixel": 0.0}, {"shape": (0, 4)}, {"pixel": (1.0, -1.0)}])
def test_lengths_are_positive(bad):
    with pytest.raises(ValueError, match="positive"):
        Grid(**{"shape": (4, 4), "pixel": 1.0, "wavelength": 1.0} | bad)
