import jax.numpy as jnp
import numpy as np
import pytest
from models import GRID, affine_scan

from jaxptycho import AffineScan, FreeScan, PerShot, select
from jaxptycho.parts.scan import linear_map


def place(nominal, matrix=None, shift=(0.0, 0.0), residual=(0.0, 0.0), pivot=(0.0, 0.0)):
    matrix = jnp.eye(2) if matrix is None else matrix
    return AffineScan(
        *(jnp.asarray(v, float) for v in (nominal, matrix, shift, residual, pivot))
    ).position()


def test_identity_leaves_positions():
    np.testing.assert_allclose(place((3.0, 4.0)), [3.0, 4.0])


def test_quarter_turn_takes_y_to_x():
    np.testing.assert_allclose(
        place((1.0, 0.0), linear_map(rotation=np.pi / 2)), [0.0, 1.0], atol=1e-12
    )


def test_scale_and_shear():
    np.testing.assert_allclose(place((2.0, 3.0), linear_map(scale=(1.5, 2.0))), [3.0, 6.0])
    np.testing.assert_allclose(place((2.0, 3.0), linear_map(shear=0.1)), [2.0, 3.2])


def test_pivot_stays_but_for_shift_and_residual():
    turned = place(
        (5.0, 7.0), linear_map((1.1, 0.9), 0.2, 0.3), (0.5, -0.5), (0.01, 0.02), pivot=(5.0, 7.0)
    )
    np.testing.assert_allclose(turned, [5.51, 6.52])


def test_every_shot_has_its_own_position():
    scan = affine_scan()
    for shot in (0, 4):
        nominal, residual = scan.nominal.values[shot], scan.residual.values[shot]
        expected = scan.matrix @ (nominal - scan.pivot) + scan.pivot + scan.shift + residual
        np.testing.assert_allclose(select(scan, PerShot, shot).position(), expected)


def test_positions_are_measured_in_pixels():
    assert FreeScan(PerShot(jnp.zeros((3, 2)))).scale(GRID) == {"positions": pytest.approx(0.5)}


def test_the_residual_of_an_affine_scan_has_no_linear_part():
    rng = np.random.default_rng(0)
    nominal = rng.uniform(0, 20, (50, 2))
    noise = rng.normal(0, 0.1, (50, 2))
    drift = (nominal - nominal.mean(0)) @ np.array([[0.01, 0.002], [-0.003, 0.02]]) + [0.3, -0.2]

    def scan(residual):
        zero = jnp.zeros(2)
        return AffineScan(PerShot(jnp.asarray(nominal)), jnp.eye(2), zero, PerShot(residual), zero)

    left = np.asarray(scan(jnp.asarray(noise + drift)).reduced().residual.values)
    same = np.asarray(scan(jnp.asarray(noise)).reduced().residual.values)
    np.testing.assert_allclose(left, same, atol=1e-5)
    shape = np.c_[nominal, np.ones(50)]
    np.testing.assert_allclose(shape.T @ left, 0, atol=1e-2)
    assert np.std(left) == pytest.approx(0.1, rel=0.2)
