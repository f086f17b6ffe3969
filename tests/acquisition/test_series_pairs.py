"""Partners of an image and the noise of their shifts."""

import numpy as np

from jaxptycho.acquisition import closest_tilts, pair_sigma


def test_noise_grows_with_the_tilt_between_images():
    first = np.deg2rad([0.0, 0.0, 30.0])
    second = np.deg2rad([0.0, 6.0, 12.0])
    np.testing.assert_allclose(pair_sigma(first, second, 20.0) ** 2, [400, 800, 4000])


def test_partners_are_the_closest_exposed_tilts_of_both_branches():
    angles = np.deg2rad([0.0, 3.0, -3.0, -6.0, 6.0, 9.0])
    assert closest_tilts(angles, 3, np.arange(3), 2).tolist() == [2, 0]
    assert closest_tilts(angles, 5, np.arange(5), 3).tolist() == [4, 1, 0]
    assert closest_tilts(angles, 1, np.arange(1), 3).tolist() == [0]
