"""What images say of themselves, in words."""

import numpy as np
import pytest
from models import rng

from jaxptycho.analysis.resolution import fourier_correlation
from jaxptycho.analysis.shells import taper
from jaxptycho.reports.evaluate_spectrum import Compared, control_of, control_rows, spectrum_rows

RING = 1 / (128 * 0.3)  # 1/Å


def limited(n=128, pixel=0.3, cut=0.6, noise=0.02):
    """Detail to a frequency [1/Å], noise beyond."""
    k = np.hypot(np.fft.fftfreq(n, pixel)[:, None], np.fft.fftfreq(n, pixel))
    common = np.fft.ifft2(np.fft.fft2(rng(0).normal(size=(n, n))) * (k < cut)).real
    return [common + noise * rng(seed).normal(size=(n, n)) for seed in (1, 2)]


def test_limit_and_lattice_are_told():
    """A lattice of 2.4 Å over detail that ends at 1/0.6 Å."""
    y = 0.3 * np.indices((128, 128))[0]
    image = limited(noise=0.2)[0] + np.cos(2 * np.pi * y / 2.4)
    rows = spectrum_rows(image, 0.3, taper(image.shape))
    assert 1 / float(rows["information limit"].split()[0]) == pytest.approx(0.6, abs=3 * RING)
    period, _, visible, *_ = rows["strongest Bragg peak"].split()
    assert float(period) == pytest.approx(2.4, rel=0.01)
    assert float(visible) > 100


def test_a_control_takes_away_what_the_window_makes():
    """Detail ends at 0.6 1/Å, to three rings of the window's smear; noise has no limit and no control."""
    first, second = limited(noise=0.2)
    window = taper(first.shape)
    pair = Compared(first, second, (0.3, 0.3), window)
    rows = control_rows(control_of(pair, fourier_correlation(*pair)), None, "frc")
    (words,) = rows.values()
    assert 1 / float(words.split()[0]) == pytest.approx(0.6, abs=3 * RING)
    noise = Compared(*rng(3).normal(size=(2, 64, 64)), (0.3, 0.3), taper((64, 64)))
    assert control_rows(control_of(noise, fourier_correlation(*noise)), None, "frc") == {}
