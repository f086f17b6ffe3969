"""Atoms as a specimen."""

import ase
import jax.numpy as jnp
import numpy as np
import pytest
from models import GRID, ORIGIN, atoms, rng

from jaxptycho import Atoms, Grid, PerShot, PerView, Volume, select
from jaxptycho.physics import scattering
from jaxptycho.simulate.phantoms import arrange


def test_slices_multiply_to_the_phase_of_the_whole():
    """σ ∫V dz of all atoms, the outer tails included, by Σ f(0) for the mean."""
    specimen = atoms()
    phase = jnp.angle(specimen.slices(GRID).transmission.astype(complex)).sum(0)
    area = GRID.pixel[0] * GRID.pixel[1]
    total = sum(
        scattering.VOLT_ANGSTROM2 * float(o) * scattering.scattering_factor(z, np.array(0.0))
        for z, o in zip(specimen.numbers, specimen.occupancy, strict=True)
    )
    np.testing.assert_allclose(phase.sum() * area, GRID.sigma * total, rtol=1e-4)


def test_a_bad_specimen_is_refused():
    with pytest.raises(ValueError, match="atomic number 0;"):
        Atoms([0], jnp.zeros((1, 3)), (8, 8), 2.0)
    with pytest.raises(ValueError, match=r"0 slices of 2\.0 Å; give at least one"):
        Atoms([6], jnp.zeros((1, 3)), (8, 8), 2.0, n_slices=0)
    with pytest.raises(ValueError, match=r"1 slices of -1\.0 Å"):
        Atoms([6], jnp.zeros((1, 3)), (8, 8), -1.0)


def test_a_view_turns_them_as_the_simulator_does():
    """Around the axis, then the shift; every view its own."""
    flat, height = atoms(), 3.0
    views = np.deg2rad([[0.0, 0.0, 0.0], [25.0, -3.0, 4.0]])
    shifts = jnp.array([[0.0, 0.0], [0.4, -0.7]])
    turning = {
        "tilt": PerView(jnp.asarray(views[:, 0])),
        "angles": PerView(jnp.asarray(views[:, 1:])),
        "shift": PerView(shifts),
        "axis": height,
    }
    series = Atoms(
        flat.numbers, flat.positions, flat.shape, 4.0, 2, ORIGIN, flat.debye_waller, 1.0, **turning
    )
    np.testing.assert_array_equal(select(series, PerView, 0).turned(), flat.positions)
    around = ase.Atoms(
        flat.numbers, positions=(np.asarray(flat.positions) - [height, 0, 0])[:, ::-1]
    )
    moved = np.array([height, 0.4, -0.7])
    turned = arrange.rotate_atoms(around, *np.rad2deg(views[1])).positions[:, ::-1] + moved
    found = select(series, PerView, 1)
    np.testing.assert_allclose(found.turned(), turned, atol=1e-12)
    at_rest = Atoms(
        flat.numbers, jnp.asarray(turned), flat.shape, 4.0, 2, ORIGIN, flat.debye_waller
    )
    np.testing.assert_allclose(
        found.slices(GRID).transmission, at_rest.slices(GRID).transmission, atol=1e-12
    )


def test_without_a_height_the_axis_is_in_the_middle():
    upside_down = Atoms([6], jnp.array([[1.0, 0.5, 2.0]]), (8, 8), 3.0, n_slices=2, tilt=np.pi)
    np.testing.assert_allclose(upside_down.turned(), [[5.0, 0.5, -2.0]], atol=1e-12)


@pytest.mark.slow
def test_turned_atoms_look_like_their_turned_volume():
    """At 20°, every slice of it, to what the interpolation of voxels loses."""
    grid, n, pixel = Grid((16, 16), 0.4, voltage_kv=80.0), 24, 0.4
    middle = n // 2 * pixel
    places = rng(5).uniform(-2.5, 2.5, (5, 3)) + np.array([middle + pixel / 2, 0, 0])
    corner, tilt = (-middle, -middle), 0.35
    at_rest = Atoms([26, 8, 8, 13, 6], jnp.asarray(places), (n, n), pixel, n, corner, 20.0)
    volts = jnp.angle(at_rest.slices(grid).transmission) / (grid.sigma * pixel)
    volume = Volume(volts, pixel, tilt, 4, taper=0.0).slices(grid)
    thick, axis = 6 * pixel, middle + pixel / 2
    turned = Atoms(
        at_rest.numbers, at_rest.positions, (n, n), thick, 4, corner, 20.0, tilt=tilt, axis=axis
    )
    expected = jnp.angle(turned.slices(grid).transmission)
    np.testing.assert_allclose(
        jnp.angle(volume.transmission), expected, atol=0.015 * float(expected.max())
    )


def test_atoms_turn_once_for_all_shots():
    with pytest.raises(ValueError, match="rotated once for all shots of a view"):
        Atoms([6], jnp.zeros((1, 3)), (8, 8), 2.0, tilt=PerShot(jnp.zeros(3)))
