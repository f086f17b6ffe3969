"""Cameras: means, variances and correlations by theory."""

import numpy as np
import pytest

from jaxptycho.simulate.camera import Camera

FLAT = np.ones((16, 16))


def recorded(camera, mean, n=2000, gain=None, seed=0):
    gain = FLAT if gain is None else gain
    return camera.recorded(np.full((n, 16, 16), mean), gain, np.random.default_rng(seed)).astype(
        float
    )


def test_a_counting_camera_is_poisson():
    counts = recorded(Camera(), 3.0)
    np.testing.assert_allclose([counts.mean(), counts.var()], 3.0, rtol=0.01)
    assert Camera().recorded(np.zeros((1, 2, 2)), 1.0, np.random.default_rng(0)).dtype == np.uint16


def test_a_gain_adds_the_variance_of_its_own_events():
    """Poisson of Poisson: mean gm, variance gm + g²m."""
    counts = recorded(Camera(gain=5.0), 2.0)
    np.testing.assert_allclose(counts.mean(), 10.0, rtol=0.01)
    np.testing.assert_allclose(counts.var(), 10.0 + 25 * 2.0, rtol=0.02)


def test_spread_counts_are_correlated_as_the_spread_with_itself():
    """cov(d) = g²m (h ⋆ h)(d) + gm δ(d), h the Gaussian on pixels."""
    sigma, gain, mean = 0.8, 20.0, 2.0
    counts = recorded(Camera(gain=gain, spread=sigma), mean, 3000)[:, 4:12, 4:12]
    np.testing.assert_allclose(counts.mean(), gain * mean, rtol=0.01)
    off = counts - counts.mean()
    line = np.exp(-(np.arange(-8, 9) ** 2) / (2 * sigma**2))
    overlap = np.correlate(line / line.sum(), line / line.sum(), "full")
    theory = {
        (0, d): gain**2 * mean * overlap[16] * overlap[16 + d] + (gain * mean if d == 0 else 0)
        for d in (0, 1, 2)
    }
    for (_, d), wanted in theory.items():
        measured = np.mean(off[:, :, : 8 - d] * off[:, :, d:])
        np.testing.assert_allclose(measured, wanted, rtol=0.03, atol=0.01 * theory[0, 0])


def test_the_gain_map_is_the_cameras_own():
    camera = Camera(flatfield=0.05, readout=2.0, gain=10.0)
    gain = camera.gain_map((64, 64), seed=3)
    np.testing.assert_array_equal(gain, camera.gain_map((64, 64), seed=3))
    assert not np.array_equal(gain, camera.gain_map((64, 64), seed=4))
    np.testing.assert_allclose([gain.mean() - 1, gain.std() / 0.05], [0, 1], atol=0.05)
    counts = recorded(camera, 20.0, 1000, gain[:16, :16])
    np.testing.assert_allclose(counts.mean(0), 200 * gain[:16, :16], rtol=0.03)
    variance = 4.0 + 1 / 12 + gain[:16, :16] ** 2 * 200 * 11
    np.testing.assert_allclose(counts.var(0) / variance, 1, atol=0.25)


def test_without_noise_the_expectation_is_written():
    expected = np.random.default_rng(0).uniform(0, 5, (2, 4, 4))
    written = Camera(noise=False, gain=3.0).recorded(expected, 0.5, np.random.default_rng(0))
    np.testing.assert_allclose(written, 1.5 * expected, rtol=1e-6)
    assert written.dtype == np.float32


def test_the_expectation_is_the_mean_of_the_noisy_counts():
    """With counts that spread to the neighbours and beyond the edges."""
    expected = np.zeros((1, 16, 16))
    expected[0, 3:6, 0:9] = 4.0
    camera = {"gain": 6.0, "spread": 1.1, "readout": 0.5}
    written = Camera(**camera, noise=False).recorded(expected, FLAT, np.random.default_rng(0))
    noisy = (
        Camera(**camera)
        .recorded(np.repeat(expected, 4000, 0), FLAT, np.random.default_rng(1))
        .mean(0)
    )
    np.testing.assert_allclose(noisy, written[0], atol=5 * np.sqrt(4 * 36 / 4000))
    assert written[0, 4, 0] < 0.6 * 24  # half of it beyond the edge


def test_too_many_counts_are_refused():
    with pytest.raises(ValueError, match="that a file holds; lower the dose"):
        recorded(Camera(), 1e6, 1)
