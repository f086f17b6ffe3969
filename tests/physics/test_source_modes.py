"""Modes of an extended source against averages over displaced probes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxptycho as jp
from jaxptycho.physics.modes import source_share

pytestmark = pytest.mark.usefixtures("quick_to_compile")

GRID = jp.Grid((48, 48), 0.25, 80.0)
EDGE = 0.0214  # rad
FWHM = 2 * np.sqrt(2 * np.log(2))  # standard deviations


def exit_patterns(spectra, seed):
    """Counts behind a random phase object, summed over waves."""
    ky, kx = (np.asarray(k) for k in GRID.frequencies())
    noise = np.random.default_rng(seed).normal(size=GRID.shape)
    phase = np.fft.ifft2(np.fft.fft2(noise) * np.exp(-(ky**2) - kx**2)).real
    transmission = np.exp(0.5j * phase / phase.std())
    exits = transmission * np.fft.ifft2(spectra, norm="ortho")
    return (np.abs(np.fft.fft2(exits, norm="ortho")) ** 2).sum(0)


def displaced(probe, width):
    """Spectra of the probe at the places of a Gauss–Hermite quadrature, weighted."""
    ky, kx = (np.asarray(k) for k in GRID.frequencies())
    wave = np.asarray(probe.spectrum(GRID))[0]
    nodes, weights = np.polynomial.hermite_e.hermegauss(11)
    weights = weights / weights.sum()
    return np.stack(
        [
            np.sqrt(v * w) * wave * np.exp(-2j * np.pi * width * (a * ky + b * kx))
            for a, v in zip(nodes, weights, strict=True)
            for b, w in zip(nodes, weights, strict=True)
        ]
    )


@pytest.mark.parametrize(("fwhm", "modes"), [(0.3, 3), (0.5, 6), (0.8, 10), (1.2, 15)])
@pytest.mark.parametrize("tilt", [(0.0, 0.0), (0.004, -0.002)])
def test_modes_are_the_average_over_displaced_probes(fwhm, modes, tilt):
    lens = {"defocus": 150.0, "C30": 1e4}
    width = fwhm / FWHM
    spectra = jp.AberratedProbe(EDGE, lens, 1e3, tilt, width, modes).spectrum(GRID)
    assert spectra.shape == (modes, *GRID.shape)
    coherent = jp.AberratedProbe(EDGE, lens, 1e3, tilt)
    for seed in range(2):
        found = exit_patterns(np.asarray(spectra), seed)
        expected = exit_patterns(displaced(coherent, width), seed)
        assert np.abs(found - expected).sum() < 2e-3 * expected.sum()


def test_a_vacuum_does_not_show_the_source():
    probe = jp.AberratedProbe(EDGE, {}, 1e3, source=0.4, modes=6)
    whole = jnp.sum(jnp.abs(probe.spectrum(GRID)) ** 2, 0)
    np.testing.assert_allclose(
        whole, jnp.abs(jp.AberratedProbe(EDGE, {}, 1e3).spectrum(GRID)[0]) ** 2
    )


def test_a_point_source_is_coherent():
    spectra = jp.AberratedProbe(EDGE, {"defocus": 99.0}, source=0.0, modes=6).spectrum(GRID)
    np.testing.assert_allclose(
        spectra[0], jp.AberratedProbe(EDGE, {"defocus": 99.0}).spectrum(GRID)[0]
    )
    assert not jnp.abs(spectra[1:]).any()


def test_the_gradient_by_the_source_is_that_of_differences():
    weight = jnp.asarray(np.random.default_rng(0).normal(size=GRID.shape))

    def value(source):
        waves = jp.AberratedProbe(EDGE, {"defocus": 99.0}, 1.0, source=source, modes=6)
        shown = jnp.fft.ifft2(waves.spectrum(GRID))
        return jnp.sum(weight * jnp.abs(shown) ** 2)

    step = 1e-5
    by_differences = (value(0.3 + step) - value(0.3 - step)) / (2 * step)
    np.testing.assert_allclose(jax.grad(value)(0.3), by_differences, rtol=1e-6)


def test_the_share_of_few_modes_falls_with_the_source():
    middle = jnp.zeros(2)
    shares = [float(source_share(GRID, s, EDGE / GRID.wavelength, middle, 3)) for s in (0.05, 0.5)]
    assert shares[0] > 0.999
    assert shares[1] < 0.8


def test_modes_of_a_source_can_be_added():
    probe = jp.AberratedProbe(EDGE, {"defocus": 99.0}, source=0.3, modes=3)
    assert probe.with_modes(6).spectrum(GRID).shape[0] == 6
    with pytest.raises(ValueError, match="give it a source"):
        jp.AberratedProbe(EDGE).with_modes(3)
