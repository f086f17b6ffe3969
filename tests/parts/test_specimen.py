import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from models import FIELD, GRID, ORIGIN, absorptions, phases, positions, stack, thin

from jaxptycho import FreeScan, Grid, PerShot, PotentialSlices, SliceStack, WeakPhaseStack, predict
from jaxptycho.physics import windows

pytestmark = pytest.mark.usefixtures("quick_to_compile")

SHOTS = jnp.arange(3)
predicted = eqx.filter_jit(lambda model: predict(model, SHOTS))


def test_transmission_is_phase_and_absorption():
    t = stack(2).slices(GRID).transmission
    np.testing.assert_allclose(
        t, np.exp(1j * np.asarray(phases(2)) - np.asarray(absorptions(2))), atol=1e-12
    )


def test_without_absorption_nothing_is_lost():
    t = SliceStack(phases(), None, 1.0, ORIGIN).slices(GRID).transmission
    np.testing.assert_allclose(jnp.abs(t), 1.0, atol=1e-12)


def test_weak_phase_is_the_first_order():
    small, loss = 1e-4 * phases(), 1e-4 * absorptions()
    weak = WeakPhaseStack(small, loss, 1.0, ORIGIN).slices(GRID).transmission
    full = SliceStack(small, loss, 1.0, ORIGIN).slices(GRID).transmission
    np.testing.assert_allclose(weak, full, atol=1e-6)
    np.testing.assert_allclose(weak, 1 + 1j * np.asarray(small) - np.asarray(loss), atol=1e-12)


@pytest.mark.parametrize("thickness", [7.0, np.array([4.0, 9.0])])
def test_potential_is_phase_by_sigma_and_thickness(thickness):
    volts, lost = 20 * phases(2), 20 * absorptions(2)
    thickness = jnp.asarray(thickness)
    made = PotentialSlices(volts, lost, thickness, ORIGIN).slices(GRID)
    per_volt = np.reshape(thickness, (-1, 1, 1)) * GRID.sigma
    np.testing.assert_allclose(
        made.transmission, np.exp(1j * per_volt * (volts + 1j * lost)), atol=1e-12
    )


def test_photons_have_no_potential():
    grid = Grid((8, 8), 1.0, wavelength=1.0)
    with pytest.raises(ValueError, match="voltage_kv"):
        PotentialSlices(phases(), None, 1.0, ORIGIN).slices(grid)


def test_one_unit_of_potential_is_a_radian():
    unit = PotentialSlices(phases(), None, jnp.array(12.0), ORIGIN).scale(GRID)["potential"]
    assert float(unit) * GRID.sigma * 12.0 == pytest.approx(1.0)


def test_periodic_specimen_is_the_wrapped_one():
    """The same patterns as from a specimen tiled by hand, the probe in any period."""
    periods = jnp.array([[-1, 0], [0, 2], [1, -1]]) * jnp.asarray(FIELD) * jnp.asarray(GRID.pixel)
    places = positions()[:3] + jnp.array([3.0, 4.0])  # windows run over the edge
    periodic = thin(specimen=stack(2, periodic=True), scan=FreeScan(PerShot(places + periods)))
    whole = stack(2)
    tiled = SliceStack(
        jnp.tile(whole.phase, (1, 2, 2)),
        jnp.tile(whole.absorption, (1, 2, 2)),
        whole.thickness,
        whole.origin,
    )
    by_hand = thin(specimen=tiled, scan=FreeScan(PerShot(places)))
    np.testing.assert_allclose(predicted(periodic), predicted(by_hand), rtol=1e-9, atol=1e-9)


def test_periodic_specimen_of_one_window_sees_itself_rolled():
    phase = phases(field=GRID.shape)
    specimen = SliceStack(phase, None, 1.0, (0.0, 0.0), periodic=True)
    corner, _ = specimen.slices(GRID).corner(jnp.array([0.0, 0.0]), GRID)
    window = specimen.slices(GRID).window(corner, GRID)
    np.testing.assert_allclose(jnp.angle(window), jnp.roll(phase, (8, 6), axis=(1, 2)), atol=1e-12)


def test_origin_moves_the_specimen_and_not_the_pattern():
    moved = jnp.array([5.3, -2.1])
    model = thin()
    other = eqx.tree_at(
        lambda m: (m.specimen.origin, m.scan.positions.values),
        model,
        (model.specimen.origin + moved, model.scan.positions.values + moved),
    )
    np.testing.assert_allclose(predicted(model), predicted(other), rtol=1e-8, atol=1e-8)


def test_window_is_the_part_under_the_probe():
    sliced = stack().slices(GRID)
    corner, centre = sliced.corner(positions()[0], GRID)
    expected, same = windows.split_position(positions()[0], jnp.array(ORIGIN), GRID)
    np.testing.assert_array_equal(corner, expected)
    np.testing.assert_array_equal(centre, same)
    y, x = (int(c) for c in corner)
    np.testing.assert_array_equal(
        sliced.window(corner, GRID), sliced.transmission[:, y : y + 16, x : x + 12]
    )


def test_slices_of_an_empty_specimen_change_nothing():
    empty = SliceStack(jnp.zeros((3, *FIELD)), None, 0.0, jnp.array(ORIGIN))
    thin_one = SliceStack(jnp.zeros((1, *FIELD)), None, 0.0, jnp.array(ORIGIN))
    np.testing.assert_allclose(
        predicted(thin(specimen=empty)), predicted(thin(specimen=thin_one)), atol=1e-9
    )


def test_a_potential_refuses_a_thickness_per_shot():
    with pytest.raises(ValueError, match="one thickness for all shots"):
        PotentialSlices(phases(), None, PerShot(jnp.full(7, 12.0)), ORIGIN).slices(GRID)
