"""How well depth is told: the theory's numbers, and widths put into profiles and stacks."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from models import rng
from scipy.ndimage import gaussian_filter1d
from scipy.special import erf

from jaxptycho.analysis.depth import (
    depth_profiles,
    depth_resolution,
    fit_depth_edges,
    fit_depth_peaks,
    highest_depth_frequency,
    measurable_volume,
    slice_correlation,
)
from jaxptycho.figures.depth import draw_depth_profiles, draw_slice_correlation
from jaxptycho.inverse.constraints.filters import measured_part

Z = 12.0 * np.arange(16)  # Å


def test_the_cone_is_that_of_the_ewald_spheres():
    """From k₀ in the aperture to k₀ + q on the sphere: k_z = (λ/2)(|k₀ + q|² − |k₀|²) (paraxial), at most
    α q + λq²/2."""
    wavelength, semiangle, q = 0.0197, 0.0214, np.array([0.3, 1.1])
    k0 = rng(0).uniform(-1, 1, (40_000, 2))
    k0 = k0[np.hypot(*k0.T) <= 1] * semiangle / wavelength
    kz = wavelength / 2 * (np.sum((k0 + q) ** 2, 1) - np.sum(k0**2, 1))
    highest = highest_depth_frequency(np.hypot(*q), semiangle, wavelength)
    assert kz.max() <= highest
    assert kz.max() == pytest.approx(highest, rel=0.01)
    assert depth_resolution(np.hypot(*q), semiangle, wavelength) == pytest.approx(1 / highest)
    assert depth_resolution(0.0, semiangle, wavelength) == np.inf


def test_half_is_kept_at_the_edge_of_the_missing_cone():
    """β = 1/α, in the corner of a volume's transform; 300 kV and 21.4 mrad: β = 46.7."""
    semiangle, shape, spacing = 0.0214, (8, 16, 12), (10.0, 0.4, 0.5)
    w = np.asarray(measurable_volume(shape, spacing, semiangle))
    kz, ky, kx = (np.fft.fftfreq(n, d) for n, d in zip(shape, spacing, strict=True))
    kr = np.hypot(ky[:, None], kx)
    guard = 0.5 / 6.4
    expected = 1 - 2 / np.pi * np.arctan((46.7290 * kz[:, None, None]) ** 2 / (kr**2 + guard**2))
    np.testing.assert_allclose(w, expected, rtol=1e-5)
    assert w.shape == shape
    np.testing.assert_allclose(w[0], 1.0)
    edge = np.linspace(0.1, 1, 5)
    np.testing.assert_allclose(
        np.asarray(measured_part(semiangle * edge, edge, 1 / semiangle, 0.0)), 0.5
    )


def test_widths_of_peaks_and_edges_are_found():
    centres, sigmas = np.array([50.0, 101.3, 120.0]), np.array([9.0, 20.0, 15.0])
    heights, floors = np.array([1.0, 0.4, 3.0]), np.array([0.1, -0.2, 0.0])
    scaled = (Z - centres[:, None]) / sigmas[:, None]
    peaks = fit_depth_peaks(floors[:, None] + heights[:, None] * np.exp(-(scaled**2) / 2), 12.0)
    np.testing.assert_allclose(peaks.position, centres, atol=1e-4)
    np.testing.assert_allclose(peaks.fwhm, 2.35482 * sigmas, rtol=1e-5)
    np.testing.assert_allclose(peaks.amplitude, heights, rtol=1e-5)
    np.testing.assert_allclose(peaks.background, floors, atol=1e-5)
    signs = np.array([1, -1, 1])
    steps = (signs * heights)[:, None]
    edges = fit_depth_edges(floors[:, None] + steps / 2 * (1 + erf(scaled / np.sqrt(2))), 12.0)
    np.testing.assert_allclose(edges.position, centres, atol=1e-4)
    np.testing.assert_allclose(edges.step, steps[:, 0], rtol=1e-5)
    fine = np.linspace(-4, 4, 100_001)
    rise = (1 + erf(fine / np.sqrt(2))) / 2
    np.testing.assert_allclose(
        edges.width, np.ptp(fine[(rise > 0.1) & (rise < 0.9)]) * sigmas, rtol=1e-3
    )
    assert max(peaks.residual.max(), edges.residual.max()) < 1e-5


def test_profiles_follow_the_columns():
    """Two columns at different depths, between the pixels of a rectangular stack whose origin is not zero."""
    origin, pixel, columns = (
        np.array([-3.0, 2.0]),
        (0.3, 0.25),
        np.array([[2.05, 6.1], [5.33, 8.2]]),
    )
    y, x = (o + p * np.arange(n) for o, p, n in zip(origin, pixel, (40, 44), strict=True))
    depths = np.array([60.0, 120.0])
    stack = sum(
        np.exp(-(((Z - d) / 20) ** 2) / 2)[:, None, None]
        * np.exp(-((y - c[0]) ** 2)[:, None] / 0.2 - (x - c[1]) ** 2 / 0.2)
        for d, c in zip(depths, columns, strict=True)
    )
    profiles = depth_profiles(stack, columns, pixel, 0.8, origin)
    assert profiles.shape == (2, 16)
    np.testing.assert_allclose(fit_depth_peaks(profiles, 12.0).position, depths, atol=1e-3)
    middle = depth_profiles(np.ones((3, 40, 44)), columns, pixel, 0.8, origin)
    np.testing.assert_allclose(middle, 1.0)
    with pytest.raises(ValueError, match="1 columns are outside"):
        depth_profiles(stack, np.array([[0.0, 1.0]]), pixel, 0.8, origin)


def test_a_blur_along_z_shows_as_the_width_of_the_ridge():
    truth = rng(0).normal(size=(40, 32, 32))
    blurred = gaussian_filter1d(truth, 3.0, axis=0, mode="wrap")
    matrix = slice_correlation(2 * blurred[::2] + 1, truth)
    assert matrix.shape == (20, 40)
    assert np.abs(matrix.argmax(1) - np.arange(0, 40, 2)).max() <= 1
    ridge = np.mean([np.roll(row, 20 - 2 * n) for n, row in enumerate(matrix)], 0)
    width = fit_depth_peaks(ridge[None], 1.0).fwhm[0]
    assert width == pytest.approx(2.3548 * 3.0, rel=0.05)
    where = np.zeros((32, 32), bool)
    where[4:20, 3:30] = True
    inside = slice_correlation(truth[:2], truth, where)
    np.testing.assert_allclose(inside[0, 5], np.corrcoef(truth[0][where], truth[5][where])[0, 1])
    np.testing.assert_array_equal(slice_correlation(np.zeros((1, 32, 32)), truth), 0)


def test_figures_of_depth():
    profiles = np.exp(-(((Z - 80) / 20) ** 2) / 2)[None]
    figure = draw_depth_profiles(profiles, 12.0, fit_depth_peaks(profiles, 12.0))
    assert "FWHM 4.71 nm" in figure.axes[0].get_legend().get_texts()[0].get_text()
    assert isinstance(draw_slice_correlation(np.eye(4), 10.0, 10.0), Figure)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: fit_depth_peaks(np.ones((2, 3)), 1.0), "5 slices or more"),
        (lambda: slice_correlation(np.ones((2, 3, 3)), np.ones((2, 4, 4))), "resample"),
    ],
)
def test_bad_stacks_get_one_sentence(call, words):
    with pytest.raises(ValueError, match=words):
        call()
