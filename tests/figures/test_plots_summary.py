"""The summary sheet: a ring at the information limit, the aperture, residuals in their noise."""

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

from jaxptycho.figures.plots import SampledPatterns
from jaxptycho.figures.summary import SIGMAS, show_power, show_residual

PIXEL = (0.5, 0.4)


@pytest.fixture
def ax():
    return Figure().subplots()


def low_passed(limit, noise, shape=(192, 160)):
    """White noise below the frequency 1/limit [Å], and weaker noise everywhere."""
    rng = np.random.default_rng(3)
    k = np.hypot(*np.meshgrid(*map(np.fft.fftfreq, shape, PIXEL), indexing="ij"))
    signal = np.fft.ifft2(np.fft.fft2(rng.normal(size=shape)) * (k < 1 / limit)).real
    return signal + noise * rng.normal(size=shape)


def test_the_ring_of_a_spectrum_is_at_the_information_limit(ax):
    image = low_passed(2.5, 0.2)
    image[:5, :7] = np.nan  # outside the scan
    show_power(ax, image, PIXEL)
    (ring,) = [patch for patch in ax.patches if hasattr(patch, "radius")]
    named = float(ax.get_title().split()[-2])
    assert 1 / named == pytest.approx(1 / 2.5, abs=2.5 / (192 * PIXEL[0]))  # rings
    assert ring.radius == pytest.approx(160 * PIXEL[1] / named, rel=0.01)
    assert ring.center == (80, 96)


def test_white_noise_has_no_ring(ax):
    show_power(ax, low_passed(1e9, 1.0), PIXEL)
    assert ax.get_title() == "Power spectrum"


def test_residuals_are_in_units_of_counting_noise(ax):
    rng = np.random.default_rng(5)
    predicted = jnp.full((9, 40, 40), 12.0)
    measured = rng.poisson(predicted).astype(float)
    measured[:, 3, 4] += 12.0
    show_residual(ax, SampledPatterns(np.arange(9), measured, np.asarray(predicted)))
    drawn = ax.images[0].get_array()
    assert np.std(drawn) == pytest.approx(1.0, abs=0.06)
    assert drawn[3, 4] > SIGMAS
