"""Rasters and what moves them."""

import numpy as np
import pytest

from jaxptycho.simulate.scan import ScanErrors, raster

RNG = np.random.default_rng


def test_a_raster_is_centred_and_turned():
    points = raster((3, 5), 2.0, centre=(1.0, -4.0)).reshape(3, 5, 2)
    np.testing.assert_allclose(points.mean((0, 1)), [1, -4])
    np.testing.assert_allclose(points[1, 0] - points[0, 0], [2, 0])
    np.testing.assert_allclose(points[0, 1] - points[0, 0], [0, 2])
    turned = raster((3, 5), 2.0, np.pi / 2).reshape(3, 5, 2)
    np.testing.assert_allclose(np.abs(turned[1, 0] - turned[0, 0]), [0, 2], atol=1e-12)
    steps = raster((2, 2), 1.0, 0.3).reshape(2, 2, 2)
    fast, slow = steps[0, 1] - steps[0, 0], steps[1, 0] - steps[0, 0]
    np.testing.assert_allclose([fast @ slow, fast @ fast, slow @ slow], [0, 1, 1], atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(np.stack([slow, fast])), 1.0)  # turned, not mirrored


def test_errors_do_what_they_say():
    nominal = raster((20, 10), 1.5, centre=(3.0, 7.0))
    off = nominal - nominal.mean(0)
    same = ScanErrors().applied(nominal, RNG(0))
    np.testing.assert_array_equal(same, nominal)
    sheared = ScanErrors(shear=0.1, scale=(1.02, 0.97)).applied(nominal, RNG(0)) - nominal.mean(0)
    np.testing.assert_allclose(sheared, off @ np.array([[1.02, 0.102], [0, 0.97]]), atol=1e-12)
    drifted = ScanErrors(drift=(2.0, -1.0)).applied(nominal, RNG(0)) - nominal
    np.testing.assert_allclose(drifted[[0, -1]], [[0, 0], [2, -1]], atol=1e-12)
    np.testing.assert_allclose(np.diff(drifted, 2, axis=0), 0, atol=1e-12)
    jitter = ScanErrors(jitter=0.3).applied(np.zeros((20000, 2)), RNG(1))
    np.testing.assert_allclose(jitter.std(0), 0.3, rtol=0.02)
    np.testing.assert_array_equal(
        ScanErrors(drift=(5.0, 5.0)).applied(nominal[:1], RNG(0)), nominal[:1]
    )


def test_an_empty_raster_is_refused():
    with pytest.raises(ValueError, match="0 × 4 points"):
        raster((0, 4), 1.0)
    with pytest.raises(ValueError, match="-1 Å apart"):
        raster((2, 4), -1.0)
