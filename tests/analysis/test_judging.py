"""What tells a good result from a bad one, on images whose relation is known."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from models import GRID, N_SHOTS, rng, thin

from jaxptycho import Dataset, FreeScan, Grid, Model, PerShot, PixelProbe, SliceStack, predict
from jaxptycho.analysis.fit import goodness_of_fit
from jaxptycho.analysis.gauge import register, without_ramp
from jaxptycho.analysis.resolution import fixed, half_bit, one_bit, ring_correlation
from jaxptycho.analysis.truth import compare_phase


def smooth(n=64, seed=0, period=8):
    """A periodic random image without detail finer than `period` pixels."""
    spectrum = np.fft.fft2(rng(seed).normal(size=(n, n)))
    k = np.hypot(*np.meshgrid(np.fft.fftfreq(n), np.fft.fftfreq(n), indexing="ij"))
    image = np.fft.ifft2(spectrum * (k < 1 / period)).real
    return image / image.std()


def test_identical_images_correlate_in_every_ring():
    curve = ring_correlation(smooth(period=2), smooth(period=2), 0.5)
    np.testing.assert_allclose(curve.correlation, 1, atol=1e-9)
    assert curve.resolution(half_bit) == pytest.approx(1.0)  # Nyquist: two pixels of 0.5 Å


def test_independent_noise_correlates_as_chance_allows():
    n = 256
    curve = ring_correlation(rng(0).normal(size=(n, n)), rng(1).normal(size=(n, n)), 1.0)
    scatter = curve.correlation * np.sqrt(
        curve.samples
    )  # of variance 1: half the samples, each a pair of Friedel mates
    assert 0.8 < np.std(scatter[5:]) < 1.2
    assert abs(np.mean(scatter[5:])) < 0.3


def test_common_signal_below_a_frequency_gives_that_resolution():
    n, cut = 256, 16
    common = smooth(n, 0, cut)
    halves = [common + 0.2 * smooth(n, seed, 2) for seed in (1, 2)]
    curve = ring_correlation(*halves, 1.0)
    for threshold in (half_bit, one_bit, fixed(0.143)):
        assert curve.resolution(threshold) == pytest.approx(cut, rel=0.1)


def test_a_known_shift_is_found():
    image, shift = smooth(), np.array([3.37, -5.12])
    ramp = np.exp(-2j * np.pi * (np.fft.fftfreq(64)[:, None] * shift[0] + np.fft.fftfreq(64) * shift[1]))
    moved = np.fft.ifft2(np.fft.fft2(image) * ramp).real
    found = register(image, moved, digits=3)
    np.testing.assert_allclose(found.shift, -shift, atol=2e-3)
    np.testing.assert_allclose(found.image, image, atol=2e-2)


def test_a_ramp_inside_a_mask_is_removed_everywhere():
    y, x = np.indices((20, 30))
    where = (y > 3) & (x < 20)
    np.testing.assert_allclose(without_ramp(0.3 * y - 0.1 * x + 2, where), 0, atol=1e-12)


def test_fit_by_hand():
    model = thin()
    patterns = np.asarray(predict(model, jnp.arange(N_SHOTS)))
    counts = rng(3).poisson(patterns)
    data = Dataset(np.fft.fftshift(counts, axes=(1, 2)), np.asarray(model.scan.positions.values), GRID)
    fit = goodness_of_fit(model, data, size=3)
    difference = np.sqrt(counts) - np.sqrt(patterns)
    assert fit["E"] == pytest.approx(np.mean(difference**2), rel=1e-6)
    assert fit["R"] == pytest.approx(np.abs(difference).sum() / np.sqrt(counts).sum(), rel=1e-6)


@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.6, -0.9)])
def test_a_phase_is_compared_without_its_gauge(shift):
    """A truth twice as fine, seen at 0.8 of its contrast, moved and tilted."""
    n, fine = 64, smooth(128, 5, 16)  # pixels of 0.2 Å; the truth is periodic
    grid = Grid((16, 16), 0.4, 80.0)
    origin = np.array([-2.0, -1.2])
    k = np.fft.fftfreq(128, 0.2)
    places = [origin[axis] + shift[axis] + 0.4 * np.arange(n) for axis in (0, 1)]
    waves = [np.exp(2j * np.pi * np.outer(place, k)) / 128 for place in places]
    y, x = np.indices((n, n))
    phase = 0.8 * (waves[0] @ np.fft.fft2(fine) @ waves[1].T).real + 0.02 * y - 0.01 * x + 1
    steps = np.arange(4.0, 18.0, 1.0)
    places = np.stack(np.meshgrid(steps, steps, indexing="ij"), -1).reshape(-1, 2)
    stack = SliceStack(jnp.asarray(phase)[None], None, 1.0, jnp.asarray(origin))
    model = Model(PixelProbe(jnp.ones((1, 16, 16), complex)), stack, FreeScan(PerShot(jnp.asarray(places))), grid)
    agreement = compare_phase(phase, model, fine, 0.2)
    assert agreement.correlation > 0.995
    assert agreement.slope == pytest.approx(0.8, abs=0.03)  # the plane that is removed takes a little along
    np.testing.assert_allclose(agreement.shift, shift, atol=0.03)
    other = compare_phase(phase, model, smooth(128, 6, 16), 0.2)
    assert other.correlation < 0.6


def test_contrast_reversed_is_not_agreement():
    model = thin()
    turned = eqx.tree_at(lambda m: m.specimen.phase, model, -model.specimen.phase)
    patterns = np.asarray(predict(model, jnp.arange(N_SHOTS)))
    data = Dataset(np.fft.fftshift(patterns, axes=(1, 2)), np.asarray(model.scan.positions.values), GRID)
    assert goodness_of_fit(model, data)["R"] < 1e-3 < goodness_of_fit(turned, data)["R"]
