"""Power spectra, Bragg peaks and edges of images made to have them."""

import numpy as np
import pytest
from scipy.special import erf

from jaxptycho.analysis.shells import taper
from jaxptycho.analysis.spectrum import (
    bragg_peaks,
    bragg_visibility,
    fit_edge,
    information_limit,
    line_profile,
    radial_spectrum,
)


def noise(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def low_passed(image, cut, pixel):
    k2 = sum(
        np.meshgrid(
            *(np.fft.fftfreq(n, p) ** 2 for n, p in zip(image.shape, pixel, strict=True)),
            indexing="ij",
        )
    )
    return np.fft.ifftn(np.fft.fftn(image) * (k2 < cut**2)).real


@pytest.mark.parametrize("shape", [(128, 100), (30, 32, 40)])
def test_white_noise_has_its_variance_at_every_frequency(shape):
    for window in (None, taper(shape, 0.25)):
        spectrum = radial_spectrum(3 * noise(shape), (0.4, 0.5, 0.6)[: len(shape)], window)
        scatter = (spectrum.power / 9 - 1)[3:] * np.sqrt(spectrum.samples[3:] / 2)
        assert np.abs(scatter).max() < 4
        assert np.average(spectrum.power, weights=spectrum.samples) == pytest.approx(9, rel=0.05)


def test_power_is_conserved():
    """Parseval, on a ball that holds everything."""
    image = low_passed(noise((32, 32)), 0.4, (1.0, 1.0))
    spectrum = radial_spectrum(image, 1.0)
    assert np.sum(spectrum.power * spectrum.samples) == pytest.approx(np.sum(image**2))
    assert radial_spectrum(image.astype(complex), 1.0).power == pytest.approx(spectrum.power)


@pytest.mark.parametrize("shape", [(256, 200), (48, 56, 50)])
def test_the_information_limit_is_where_the_signal_ends(shape):
    pixel = (0.4, 0.5, 0.45)[: len(shape)]
    image = low_passed(3 * noise(shape), 0.6, pixel) + noise(shape, 1)
    spectrum = radial_spectrum(image, pixel, taper(shape))
    limit = information_limit(spectrum)
    assert 1 / limit.resolution == pytest.approx(0.6, abs=1.6 * spectrum.frequency[1])
    assert limit.floor == pytest.approx(1, rel=0.1)


def test_noise_has_no_information():
    assert information_limit(radial_spectrum(noise((128, 128)), 0.5)).resolution == np.inf


VECTORS = np.array([[0.31, 0.1], [-0.2, 0.4]])


def lattice(shape=(200, 160), pixel=(0.5, 0.6), noisy=1.0, heights=(1.0, 0.5)):
    y, x = (p * i for p, i in zip(pixel, np.indices(shape), strict=True))
    image = 5 + noisy * noise(shape)
    for (gy, gx), height in zip(VECTORS, heights, strict=True):
        image += height * np.cos(2 * np.pi * (gy * y + gx * x) + 0.3)
    return image, pixel


def test_bragg_peaks_are_found_where_they_are():
    found = bragg_peaks(*lattice(), count=2)
    signs = np.sign(np.sum(found * VECTORS, -1))
    np.testing.assert_allclose(found * signs[:, None], VECTORS, atol=0.05 / 96)
    (weak,) = bragg_peaks(*lattice(), count=1, beyond=0.4)
    np.testing.assert_allclose(weak * np.sign(weak[1]), VECTORS[1], atol=1e-3)


def test_bragg_visibility_is_the_peak_over_the_noise():
    """A cosine of height h in noise of variance s²: (h²/4)(Σw)²/(s²Σw²) under a window, and noise itself."""
    image, pixel = lattice()
    at_peaks = bragg_visibility(image, pixel, VECTORS)
    window = np.outer(*(np.hanning(n + 1)[:-1] for n in image.shape))
    ratio = np.sum(window) ** 2 / np.sum(window**2) / 4
    np.testing.assert_allclose(
        at_peaks, ratio * np.array([1.0, 0.25]), rtol=0.3
    )  # an off-pixel peak is a little lower
    places = np.random.default_rng(3).uniform(-0.15, 0.15, (40, 2)) - np.array([0.4, 0.5])
    assert (
        np.median(bragg_visibility(image, pixel, places)) < 8
    )  # the highest of 13 exponential numbers
    np.testing.assert_allclose(bragg_visibility(image, pixel, -VECTORS), at_peaks, rtol=1e-6)
    with pytest.raises(ValueError, match="sampled up to"):
        bragg_visibility(image, pixel, [[0.99, 0.0]])


def test_bragg_peaks_of_a_volume():
    shape, pixel = (32, 36, 40), 0.5
    z, y, x = pixel * np.indices(shape)
    volume = np.cos(2 * np.pi * (0.25 * z - 0.4 * y + 0.3 * x)) + 0.5 * noise(shape)
    (found,) = bragg_peaks(volume, pixel, count=1)
    np.testing.assert_allclose(found * np.sign(found[0]), [0.25, -0.4, 0.3], atol=3e-3)


@pytest.mark.parametrize("height", [2.0, -3.0])
def test_an_edge_is_fitted(height):
    x = 0.25 * np.arange(80)
    profile = 1 + height / 2 * (1 + erf((x - 8.3) / (np.sqrt(2) * 1.2)))
    edge = fit_edge(profile + 0.01 * noise(80), 0.25)
    assert edge.position == pytest.approx(8.3, abs=0.02)
    assert edge.sigma == pytest.approx(1.2, abs=0.03)
    assert edge.height == pytest.approx(height, abs=0.02)
    assert edge.width(0.1) == pytest.approx(2.563 * edge.sigma, rel=1e-3)
    assert edge.width() == pytest.approx(1.349 * edge.sigma, rel=1e-3)
    with pytest.raises(ValueError, match="at least 5"):
        fit_edge(profile[:4], 0.25)


def test_a_profile_across_a_slanted_edge():
    pixel, angle = (0.4, 0.5), 0.5
    y, x = (p * i for p, i in zip(pixel, np.indices((90, 80)), strict=True))
    across = np.array([np.sin(angle), np.cos(angle)])
    image = erf(((y - 18) * across[0] + (x - 20) * across[1]) / np.sqrt(2))
    middle = np.array([18.0, 20.0])
    profile, step = line_profile(image, pixel, middle - 8 * across, middle + 8 * across, width=6.0)
    edge = fit_edge(profile, step)
    assert step * (len(profile) - 1) == pytest.approx(16)
    assert (edge.position, edge.sigma) == (pytest.approx(8, abs=0.01), pytest.approx(1, abs=0.01))
    with pytest.raises(ValueError, match="shorter than a pixel"):
        line_profile(image, pixel, (1, 1), (1, 1.1))
