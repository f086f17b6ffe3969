"""Model of a series: closed forms of rotation, drift and optics, and gradients in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from jaxptycho.acquisition import (
    Belief,
    Exposures,
    GeometryPrior,
    aim,
    target_position,
    tomogram_poses,
)
from jaxptycho.acquisition.geometry import STEM, TEM
from jaxptycho.physics.volumes import rotation_matrix

ANGLES = np.deg2rad([0.0, 30.0, -60.0])


def exposures(targets=2, focus_sign=STEM):
    delay = np.full((targets, 3), 40.0)
    return Exposures.of(
        ANGLES, np.array([0, 0, 1]), delay, np.arange(3) * 3.0, focus_sign=focus_sign
    )


def geometry(places=((1e4, 4e4, -5e3), (0.0, 0.0, 2e3)), **parts):
    at_rest = GeometryPrior().belief(np.array(places), exposures(len(places))).mean
    return type(at_rest)(**{**vars(at_rest), **{k: jnp.asarray(v) for k, v in parts.items()}})


def test_target_follows_the_published_relation():
    """y = n0 cos − z0 sin and z (upstream) = n0 sin + z0 cos: Eisenstein et al. 2023."""
    n0 = 4e4
    z0 = 5e3
    for k, angle in enumerate(ANGLES):
        x, y, z = target_position(geometry(), exposures(), 0, k)
        expected = 1e4, n0 * np.cos(angle) - z0 * np.sin(angle), n0 * np.sin(angle)
        np.testing.assert_allclose((x, y, -z - z0 * np.cos(angle)), expected, atol=1e-8)


def test_a_target_on_the_axis_of_its_branch_does_not_move():
    offsets = [[700.0, -300.0], [50.0, 900.0]]
    for k, branch in enumerate((0, 0, 1)):
        one = geometry([(10.0, *offsets[branch])], axis_offsets=offsets)
        expected = (10.0, *offsets[branch])
        np.testing.assert_allclose(target_position(one, exposures(1), 0, k), expected, atol=1e-9)


def test_drift_decays_and_motion_grows_with_dose():
    still = geometry()
    moving = geometry(drift=np.ones((3, 3)) * 2.0, motion=np.ones((2, 3)) * 5.0)
    moved = target_position(moving, exposures(), 1, 2) - target_position(still, exposures(), 1, 2)
    np.testing.assert_allclose(moved, 2.0 * 40.0 * (1 - np.exp(-1.0)) + 5.0 * 6.0)


@pytest.mark.parametrize("sign", [STEM, TEM])
def test_image_shift_and_focus(sign):
    matrix = np.array([[1.1, 0.2], [-0.1, 0.9]])
    turned = geometry(azimuth=0.3, matrix=matrix)
    x, y, z = target_position(turned, exposures(), 0, 1)
    rotation = np.array([[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]])
    expected = [*(matrix @ rotation @ [x, y]), sign * z]
    np.testing.assert_allclose(aim(turned, exposures(focus_sign=sign), 0, 1), expected)


def test_gradients_are_those_of_finite_differences():
    rng = np.random.default_rng(0)
    vector, unravel = ravel_pytree(geometry())
    vector = vector + rng.normal(size=vector.shape) * 0.1

    def value(v):
        return aim(unravel(v), exposures(), 0, 2)

    slopes = jax.jit(jax.jacrev(value))(vector)
    places = jax.jit(jax.vmap(value))
    step = 1e-4
    shifted = step * np.eye(len(vector))
    finite = (places(vector + shifted) - places(vector - shifted)).T / (2 * step)
    np.testing.assert_allclose(slopes, finite, rtol=1e-6, atol=1e-4)
    assert np.all(np.isfinite(slopes))
    assert np.count_nonzero(np.any(np.abs(slopes) > 1e-9, 0)) == 3 + 2 + 3 + 3 + 3 + 1 + 1 + 4


def test_poses_of_a_tomogram_place_the_surroundings_of_a_target():
    rng = np.random.default_rng(1)
    beside = np.array([30.0, -20.0, 50.0])  # x, y, z from the first target
    one = geometry(
        [(1e4, 4e4, -5e3), (1e4 + 30.0, 4e4 - 20.0, -5e3 + 50.0)],
        azimuth=0.2,
        matrix=np.array([[1.1, 0.2], [-0.1, 0.9]]),
        stage=rng.normal(size=(3, 3)) * 100,
        axis_offsets=rng.normal(size=(2, 2)) * 1000,
        angle_errors=rng.normal(size=3) * 1e-3,
    )
    aims = np.array([aim(one, exposures(), 0, k) for k in range(3)])
    shifts = aims[:, :2] + rng.normal(size=(3, 2)) * 50
    poses = tomogram_poses(Belief(one, jnp.zeros((1, 1))), exposures(), 0, shifts)
    optics = one.matrix @ np.array([[np.cos(0.2), -np.sin(0.2)], [np.sin(0.2), np.cos(0.2)]])
    for k, pose in enumerate(np.asarray(poses)):
        _, y, x = np.asarray(rotation_matrix(tuple(pose[:3]))) @ beside[[2, 0, 1]]
        seen = optics @ (np.array([y, x]) + pose[3:]) + shifts[k]
        np.testing.assert_allclose(seen, aim(one, exposures(), 1, k)[:2], atol=1e-6)
