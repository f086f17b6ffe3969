"""Scans coarser than the bright field's limit: all aliases of a frequency together."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxptycho import direct
from jaxptycho.simulate.scan import raster
from jaxptycho.start import optics_fit
from jaxptycho.start.aliased_likelihood import aliased_evidence_and_scores, likely_spectra
from jaxptycho.start.aliases import AliasedSidebands, aliased_sidebands
from jaxptycho.start.optics_fit import BASE
from jaxptycho.start.superpixels import SuperpixelImages
from jaxptycho.start.weak_object_likelihood import NAMES

WAVELENGTH = 0.04  # Å
SEMIANGLE = 8e-3  # rad
DEFOCUS = 500.0  # Å, 0.8 λ/α²
MIRROR = np.eye(2)


def few_sidebands(dtype):
    """Random images of five cells at three frequencies of four aliases."""
    rng = np.random.default_rng(0)
    radius = SEMIANGLE / WAVELENGTH
    aliases = rng.uniform(-1.2, 1.2, (3, 4, 2)) * radius
    return AliasedSidebands(
        jnp.asarray(rng.normal(size=(3, 5)) + 1j * rng.normal(size=(3, 5)), jnp.complex128),
        jnp.asarray(rng.uniform(-0.6, 0.6, (5, 2)) * radius, dtype),
        jnp.asarray(rng.uniform(1.0, 2.0, 5), dtype),
        jnp.asarray(aliases, dtype),
        jnp.asarray(rng.random((3, 4)) < 0.8, dtype),
        jnp.asarray(rng.integers(0, 16, (3, 4)), jnp.int32),
        jnp.asarray(aliases[:, 0], dtype),
        jnp.ones(3, dtype),
        jnp.zeros(3, jnp.int32),
        jnp.asarray(WAVELENGTH, dtype),
        jnp.asarray(radius, dtype),
        jnp.asarray(0.3 * radius, dtype),
    )


def test_scores_are_the_derivatives_of_the_evidence():
    with jax.enable_x64(True):
        bands = few_sidebands(jnp.float64)
        theta = np.r_[-DEFOCUS, 30.0, -20.0, np.zeros(len(NAMES) - 3), 0.3]
        along = np.diag(np.r_[np.full(3, 50.0), np.full(len(NAMES) - 3, 3e3), 0.1])[BASE]
        mirror = np.diag([1.0, -1.0])
        spectra = likely_spectra(theta, mirror, bands)

        def evidence(step):
            return aliased_evidence_and_scores(theta + step @ along, along, mirror, bands, spectra)

        slopes = evidence(np.zeros(len(along)))[1]
        for number, unit in enumerate(np.eye(len(along))):
            after, before = (evidence(sign * 1e-5 * unit)[0] for sign in (1, -1))
            np.testing.assert_allclose(slopes[:, number], (after - before) / 2e-5, rtol=1e-5)


def weak_images(seed):
    """Bright field of a weak random phase, at positions 1.7 times as far apart as its limit needs.

    The phase has the period of the scan, so that the sum over its frequencies is exact.
    """
    side = 16
    radius = SEMIANGLE / WAVELENGTH
    step = 1.7 / (4 * radius)
    lens = direct.Optics.of(1e3 * SEMIANGLE, WAVELENGTH, 0.05 * radius, defocus=DEFOCUS)
    index = np.argwhere(np.ones((4 * side, 4 * side))) - 2 * side
    q = index / (side * step)
    length = np.hypot(*q.T)
    half = (index[:, 0] > 0) | ((index[:, 0] == 0) & (index[:, 1] > 0))
    inside = (length < 2 * radius) & half
    q = q[inside]
    rng = np.random.default_rng(seed)
    phase = (rng.normal(size=len(q)) + 1j * rng.normal(size=len(q))) / (1 + length[inside] / 0.1)
    cells = np.argwhere(np.hypot(*np.mgrid[-5:6, -5:6]) < 5.4)
    k = (cells - 5) * radius / 6
    places = raster((side, side), step)
    gamma = np.asarray(direct.transfer(lens, k, q))
    waves = np.exp(2j * np.pi * places @ q.T)
    change = 2 * np.real(waves @ (1j * phase[:, None] * gamma.T))
    counts = 1e6 * (1 + 1e-3 * change / change.std())
    ones = np.ones(len(cells), int)
    return SuperpixelImages(counts, places, cells, k, ones, radius / 6)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_coarse_scan_gives_the_defocus(seed):
    images = weak_images(seed)
    radius = SEMIANGLE / WAVELENGTH
    shifts = WAVELENGTH * DEFOCUS * images.k
    bands = aliased_sidebands(images, radius, WAVELENGTH, shifts)
    assert bands.valid.sum(1).max() == 4
    units = optics_fit.parameter_units(SEMIANGLE, WAVELENGTH)
    theta = np.zeros(len(NAMES) + 1)
    theta[0] = -0.93 * DEFOCUS
    start = optics_fit.evaluated(theta, MIRROR, BASE, units, bands)
    fit = optics_fit.maximised(optics_fit.evaluated(start.theta, MIRROR, BASE, units, bands))
    assert abs(-fit.theta[0] / DEFOCUS - 1) < 0.03
    assert abs(fit.theta[-1]) < 5e-3
