"""Gauges of volumes: rotation, shift, contrast and hand are found and removed."""

import numpy as np
import pytest
from models import rng
from scipy.spatial.transform import Rotation

from jaxptycho.analysis.volumes import align_volume, euler_angles, rotation_matrices

SHAPE, VOXEL = (36, 40, 44), np.array([0.6, 0.5, 0.5])


def blobs(seed=0, count=25, width=1.4):
    """A function of places [Å, axes first]: Gaussian blobs without any symmetry."""
    random = rng(seed)
    centres, heights = random.uniform(-6, 6, (count, 3)), random.uniform(0.4, 1.6, count)

    def at(places):
        return sum(
            h * np.exp(-np.sum((places - c[:, None, None, None]) ** 2, axis=0) / (2 * width**2))
            for c, h in zip(centres, heights, strict=True)
        )

    return at


def places():
    return (np.indices(SHAPE) - (np.array(SHAPE) // 2)[:, None, None, None]) * VOXEL[
        :, None, None, None
    ]


def seen_at(matrix, shift):
    """Where the reference lies that stands at matrix·r + shift [Å]."""
    return np.tensordot(np.linalg.inv(matrix), places() - np.asarray(shift)[:, None, None, None], 1)


@pytest.mark.parametrize(
    ("angles", "shift", "mirrored"),
    [((1.0, -0.5, 2.0), (0.21, -0.33, 0.4), False), ((-11.0, 10.0, 12.0), (-1.3, 0.9, 2.2), True)],
)
def test_a_volume_is_turned_and_shifted_back(angles, shift, mirrored):
    """To 10⁻³ voxels at the edge, with its contrast, offset and hand."""
    truth, rotation = blobs(), rotation_matrices(np.deg2rad(angles))
    mirror = np.diag([-1.0 if mirrored else 1.0, 1, 1])
    volume = 0.7 * truth(seen_at(rotation @ mirror, shift)) + 0.2
    found = align_volume(volume, truth(places()), VOXEL)
    assert found.mirrored == mirrored
    assert found.agreement[mirrored] > 0.999 > 0.9 > found.agreement[not mirrored]
    edge = np.array(SHAPE) / 2 * VOXEL
    assert (
        np.abs((found.rotation - rotation) @ edge) + np.abs(found.shift - shift)
    ).max() < 1e-3 * VOXEL.min()
    np.testing.assert_allclose(found.angles, angles, atol=5e-3)
    np.testing.assert_allclose([found.scale, found.offset], [0.7, 0.2], atol=1e-3)
    np.testing.assert_allclose(found.volume[found.inside], truth(places())[found.inside], atol=0.01)


def test_angles_come_back():
    angles = rng(1).uniform(-1.2, 1.2, (5, 3))
    np.testing.assert_allclose(euler_angles(rotation_matrices(angles)), angles, atol=1e-12)


def test_the_tilt_is_that_of_the_conventions():
    """x′ = x cos θ + z sin θ and z′ = −x sin θ + z cos θ on (z, y, x); scipy says the same of (x, y, z)."""
    theta = 0.3
    z, y, x = 1.0, 2.0, 3.0
    seen = rotation_matrices(np.array([theta, 0.0, 0.0])) @ [z, y, x]
    c, s = np.cos(theta), np.sin(theta)
    np.testing.assert_allclose(seen, [-x * s + z * c, y, x * c + z * s])
    np.testing.assert_allclose(Rotation.from_rotvec([0, theta, 0]).apply([x, y, z]), seen[::-1])
