"""A phase against the truth: offset, ramp and shift do not count, the scanned area does."""

import jax.numpy as jnp
import numpy as np
import pytest
from models import rng

from jaxptycho import FreeScan, Grid, Model, PerShot, PixelProbe, SliceStack
from jaxptycho.analysis.scanned import scanned
from jaxptycho.analysis.truth import compare_phase
from jaxptycho.physics.scattering import scattering_factor

ORIGIN, PIXELS, FINE = np.array([-2.0, -1.2]), 64, 0.2


def smooth(seed, n=128, period=16):
    """A periodic random image without detail finer than `period` pixels."""
    spectrum = np.fft.fft2(rng(seed).normal(size=(n, n)))
    k = np.hypot(*np.meshgrid(np.fft.fftfreq(n), np.fft.fftfreq(n), indexing="ij"))
    image = np.fft.ifft2(spectrum * (k < 1 / period)).real
    return image / image.std()


def seen(truth, shift, pixel=(0.4, 0.4)):
    """The periodic truth from a shifted origin on, on the pixels of a model."""
    k = np.fft.fftfreq(len(truth), FINE)
    places = [ORIGIN[axis] + shift[axis] + pixel[axis] * np.arange(PIXELS) for axis in (0, 1)]
    waves = [np.exp(2j * np.pi * np.outer(place, k)) / len(truth) for place in places]
    return (waves[0] @ np.fft.fft2(truth) @ waves[1].T).real


def model_of(phase, pixel=(0.4, 0.4), beyond=0.0):
    steps = np.arange(4.0, 18.0, 1.0) + beyond
    places = np.stack(np.meshgrid(steps, steps, indexing="ij"), -1).reshape(-1, 2)
    stack = SliceStack(jnp.asarray(phase)[None], None, 1.0, jnp.asarray(ORIGIN))
    probe, scan = PixelProbe(jnp.ones((1, 16, 16), complex)), FreeScan(PerShot(jnp.asarray(places)))
    return Model(probe, stack, scan, Grid((16, 16), pixel, 80.0))


@pytest.mark.parametrize(
    ("shift", "pixel"),
    [((0.0, 0.0), (0.4, 0.4)), ((0.6, -0.9), (0.4, 0.4)), ((0.3, 0.5), (0.4, 0.5))],
)
def test_a_phase_is_compared_without_its_gauge(shift, pixel):
    """A finer truth, seen at 0.8 of its contrast, moved and tilted."""
    truth = smooth(5)
    y, x = np.indices((PIXELS, PIXELS))
    phase = 0.8 * seen(truth, shift, pixel) + 0.02 * y - 0.01 * x + 1
    model = model_of(phase, pixel)
    agreement = compare_phase(phase, model, truth, FINE)
    assert agreement.correlation > 0.9999
    assert agreement.slope == pytest.approx(0.8, abs=0.01)
    np.testing.assert_allclose(agreement.shift, shift, atol=0.01)
    np.testing.assert_allclose(agreement.phase, agreement.slope * agreement.truth, atol=0.05)
    assert compare_phase(phase, model, smooth(6), FINE).correlation < 0.6


@pytest.mark.parametrize("pixel", [0.25, 0.5])
def test_sharp_atoms_do_not_fold_back_on_coarse_pixels(pixel):
    """The truth at 0.1 Å has scattering factors to its own Nyquist frequency, a perfect result has them to that of its pixels."""
    n, fine, places = 250, 0.1, rng(3).uniform(0, 25.0, (60, 2))
    k = np.fft.fftfreq(n, fine)
    k2 = k[:, None] ** 2 + k**2
    waves = (
        np.exp(-2j * np.pi * k[:, None] * places[:, 0])
        @ np.exp(-2j * np.pi * k[:, None] * places[:, 1]).T
    )
    spectrum = waves * scattering_factor(14, k2) / 10
    truth = np.fft.ifft2(spectrum).real
    known = np.fft.ifft2(spectrum * (k2 < 1 / (2 * pixel) ** 2))
    step = round(25.0 / pixel)
    own = np.fft.fftfreq(step, pixel)
    ramps = [np.exp(2j * np.pi * own * corner) for corner in ORIGIN]
    chosen = np.round(own * 25.0).astype(int)
    phase = (
        np.fft.ifft2(np.fft.fft2(known)[np.ix_(chosen, chosen)] * np.outer(*ramps)).real
        * (step / n) ** 2
    )
    agreement = compare_phase(phase, model_of(phase, (pixel, pixel)), truth, fine)
    assert agreement.correlation > 0.99999
    assert agreement.slope == pytest.approx(1, abs=5e-4)
    np.testing.assert_allclose(agreement.shift, 0, atol=1e-3)


def test_a_truth_with_edges_is_compared_where_it_is_known():
    truth, shift = smooth(5), (0.3, -0.4)
    phase = 0.8 * seen(truth, shift)
    begin = np.array([20, 35])  # pixels of the truth that are not known
    part = truth[begin[0] :, begin[1] : 100]
    agreement = compare_phase(phase, model_of(phase), part, FINE, truth_origin=begin * FINE)
    assert agreement.correlation > 0.999
    np.testing.assert_allclose(agreement.shift, shift, atol=0.01)
    area = scanned(model_of(phase))
    x = ORIGIN[1] + shift[1] + 0.4 * np.arange(area[1].start, area[1].stop)
    np.testing.assert_array_equal(agreement.inside[-1], (x >= 7.0) & (x <= 99 * FINE))


def test_a_truth_elsewhere_is_refused():
    phase = seen(smooth(5), (0.0, 0.0))
    with pytest.raises(
        ValueError,
        match=r"the truth, at y = 100 to 125.4 Å .* does not overlap the result, scanned at",
    ):
        compare_phase(phase, model_of(phase), smooth(5), FINE, truth_origin=(100.0, 0.0))


def test_a_scan_beside_the_specimen_is_refused():
    with pytest.raises(ValueError, match="no position is on the specimen"):
        scanned(model_of(np.zeros((PIXELS, PIXELS)), beyond=60.0))
