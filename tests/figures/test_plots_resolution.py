"""What the figures of resolution say in words and show as lines."""

import numpy as np

from jaxptycho.analysis.resolution import (
    directional_correlations,
    fixed,
    fourier_correlation,
    phase_randomised_control,
)
from jaxptycho.analysis.shells import taper
from jaxptycho.analysis.spectrum import information_limit, radial_spectrum
from jaxptycho.figures.resolution import (
    draw_control,
    draw_correlation,
    draw_directions,
    draw_spectrum,
)


def halves(cut=0.5, n=96, pixel=0.4):
    rng = np.random.default_rng(0)
    k = np.hypot(np.fft.fftfreq(n, pixel)[:, None], np.fft.fftfreq(n, pixel))
    common = np.fft.ifft2(np.fft.fft2(rng.normal(size=(n, n))) * (k < cut)).real
    return [common + 0.1 * rng.normal(size=(n, n)) for _ in range(2)]


def labels(figure):
    return [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


def test_a_correlation_names_its_resolutions():
    curve = fourier_correlation(*halves(), 0.4)
    figure = draw_correlation(curve, {"0.5": fixed(0.5)})
    assert labels(figure) == ["correlation", f"0.5: {curve.resolution(fixed(0.5)):.3g} Å"]
    nothing = fourier_correlation(halves()[0], -halves()[1], 0.4)
    assert "half-bit: inf Å" in labels(draw_correlation(nothing))


def test_directions_lie_side_by_side():
    curves = dict(
        zip("yx", directional_correlations(*halves(), 0.4, [(1, 0), (0, 1)], 0.5), strict=True)
    )
    assert [label[:2] for label in labels(draw_directions(curves))] == ["y:", "x:"]


def test_a_spectrum_shows_floor_and_limit():
    spectrum = radial_spectrum(halves()[0], 0.4)
    limit = information_limit(spectrum)
    assert labels(draw_spectrum(spectrum, limit))[1:] == [
        "noise floor",
        f"information limit: {limit.resolution:.3g} Å",
    ]
    assert labels(draw_spectrum(spectrum)) == ["power"]


def test_a_control_stands_beside_the_signal_to_noise_ratio():
    window = taper((96, 96))
    control = phase_randomised_control(*halves(), 0.4, window, 0.3)
    figure = draw_control(control)
    assert labels(figure) == ["as compared", "random phases", "corrected"]
    drawn = figure.axes[1].lines[0].get_ydata()
    ratio = control.corrected.ssnr[1:]
    np.testing.assert_allclose(drawn[ratio > 0], ratio[ratio > 0])
