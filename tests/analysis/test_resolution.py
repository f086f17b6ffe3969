"""Correlations of images whose relation is known: alike, independent, shared in part of Fourier space."""

import numpy as np
import pytest

from jaxptycho.analysis.resolution import (
    directional_correlations,
    fixed,
    fourier_correlation,
    half_bit,
    one_bit,
    phase_randomised_control,
    wedge_correlations,
    with_random_phases,
)
from jaxptycho.analysis.shells import cone, filling, outside, shells, soft_mask, taper, wedge

SHAPES = [(96, 80), (33, 40), (24, 30, 20), (21, 24, 19)]
KINDS = {
    "image": ((192, 160), False),
    "volume": ((40, 48, 36), False),
    "complex image": ((192, 160), True),
}


def noise(shape, seed, complex_valued=False):
    rng = np.random.default_rng(seed)
    return rng.normal(size=shape) + (1j * rng.normal(size=shape) if complex_valued else 0)


def low_passed(image, cut, pixel=1.0):
    """The image without frequencies beyond `cut` [1/Å]."""
    k2 = sum(np.meshgrid(*(np.fft.fftfreq(n, pixel) ** 2 for n in image.shape), indexing="ij"))
    return np.fft.ifftn(np.fft.fftn(image) * (k2 < cut**2)).real


@pytest.mark.parametrize("shape", SHAPES)
def test_shells_of_half_a_space_count_all_of_it(shape):
    """Against the whole, ring by ring, with pixels that differ."""
    pixel = np.array([0.5, 0.31, 0.4])[: len(shape)]
    whole, half = shells(shape, pixel, False), shells(shape, pixel, True)
    k = np.sqrt(
        sum(
            np.meshgrid(
                *(np.fft.fftfreq(n, p) ** 2 for n, p in zip(shape, pixel, strict=True)),
                indexing="ij",
            )
        )
    )
    width = whole.frequency[1]
    assert width == pytest.approx(1 / np.min(np.array(shape) * pixel))
    expected = np.histogram(k, (np.arange(len(whole.frequency) + 1) - 0.5) * width)[0]
    np.testing.assert_array_equal(whole.sum(1.0), expected)
    np.testing.assert_array_equal(half.sum(1.0), expected)
    assert whole.frequency[-1] == pytest.approx(1 / (2 * pixel.max()), abs=width)
    assert whole.frequency[-1] <= 1 / (2 * pixel.max()) * (1 + 1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_identical_images_correlate_in_every_shell(shape):
    image = noise(shape, 0)
    curve = fourier_correlation(image, image, 0.5, taper(shape))
    np.testing.assert_allclose(curve.correlation[1:], 1, atol=1e-9)  # the mean is gone
    assert curve.resolution(half_bit) == pytest.approx(1 / curve.frequency[-1])
    reversed_contrast = fourier_correlation(image, -image, 0.5)
    np.testing.assert_allclose(reversed_contrast.correlation, -1, atol=1e-9)
    assert reversed_contrast.resolution(half_bit) == np.inf


def test_the_last_ring_of_even_pixels_is_nyquist():
    image = noise((64, 64), 1)
    assert fourier_correlation(image, image, 0.5).resolution(half_bit) == pytest.approx(1.0)


def scatter(name, window=None, filled=1.0):
    """Correlations of three pairs of independent noise images over their theoretical standard deviation."""
    shape, complex_valued = KINDS[name]
    images = [noise(shape, seed, complex_valued) for seed in range(6)]
    curves = [
        fourier_correlation(a, b, 1.0, window)
        for a, b in zip(images[::2], images[1::2], strict=True)
    ]
    independent = [(1 if complex_valued else 0.5) * c.samples[4:] / filled for c in curves]
    return np.concatenate(
        [c.correlation[4:] * np.sqrt(2 * n) for c, n in zip(curves, independent, strict=True)]
    )


@pytest.mark.parametrize("name", KINDS)
def test_independent_noise_correlates_as_chance_allows(name):
    """Mean 0 and variance 1/(2·independent samples), where Friedel mates say the same twice."""
    values = scatter(name)
    assert abs(np.mean(values)) < 3 / np.sqrt(len(values))
    assert np.std(values) == pytest.approx(1, abs=3 / np.sqrt(2 * len(values)))


@pytest.mark.parametrize("name", KINDS)
def test_a_window_leaves_fewer_samples_independent(name):
    """More than the window's filling says, for some of the likeness is to other rings, but not all."""
    window = taper(KINDS[name][0], 0.3)
    filled = filling(window)
    assert 0.2 < filled < 0.6
    assert np.std(scatter(name, window)) < 1.05
    assert np.std(scatter(name, window, filled)) > 1.05


def test_a_known_signal_to_noise_ratio_is_found():
    """Two halves of signal power 1 and noise power 2 each: the whole has 1 of signal to 1 of noise."""
    shape = (40, 48, 36)
    signal = noise(shape, 0)
    halves = [signal + np.sqrt(2) * noise(shape, seed) for seed in (1, 2)]
    curve = fourier_correlation(*halves, 1.0)
    assert np.average(curve.correlation, weights=curve.samples) == pytest.approx(1 / 3, abs=0.01)
    assert np.average(curve.ssnr[1:], weights=curve.samples[1:]) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("shape", [(256, 192), (48, 56, 52)])
def test_common_signal_below_a_frequency_gives_that_resolution(shape):
    pixel = np.array([0.5, 0.4, 0.45])[: len(shape)]
    k2 = sum(
        np.meshgrid(
            *(np.fft.fftfreq(n, p) ** 2 for n, p in zip(shape, pixel, strict=True)), indexing="ij"
        )
    )
    common = np.fft.ifftn(np.fft.fftn(noise(shape, 0)) * (k2 < 0.29**2)).real
    halves = [common + 0.1 * noise(shape, seed) for seed in (1, 2)]
    curve = fourier_correlation(*halves, pixel)
    for threshold in (half_bit, one_bit, fixed(0.143), fixed(0.5)):
        assert 1 / curve.resolution(threshold) == pytest.approx(0.29, abs=curve.frequency[1])


def test_thresholds_of_many_samples():
    """log₂(1 + SSNR) bits in a Fourier pixel of both halves together, whose FSC is SSNR/(2 + SSNR)."""
    many = 1e12
    for threshold, ratio in ((one_bit, 1.0), (half_bit, np.sqrt(2) - 1)):
        assert threshold(many) == pytest.approx(ratio / (2 + ratio), abs=1e-4)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="no common rings"):
        fourier_correlation(np.ones((4, 4)), np.ones((4, 5)), 1.0)
    with pytest.raises(ValueError, match="one for each of 2 axes"):
        fourier_correlation(np.ones((4, 4)), np.ones((4, 4)), (1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="3 components; the images have 2"):
        fourier_correlation(np.ones((4, 4)), np.ones((4, 4)), 1.0, where=cone((0, 0, 1), 0.3))
    with pytest.raises(ValueError, match="direction of its axis"):
        cone((0, 0, 0), 0.3)
    with pytest.raises(ValueError, match="lowest angle first"):
        wedge(0.5, -0.5)
    with pytest.raises(ValueError, match="is defined in a volume"):
        fourier_correlation(np.ones((4, 4)), np.ones((4, 4)), 1.0, where=wedge(-0.5, 0.5))
    with pytest.raises(ValueError, match="support of a mask is empty"):
        soft_mask(np.zeros((4, 4), bool), 2.0)


# Parts of Fourier space


@pytest.mark.parametrize("theta", [-0.7, -0.2, 0.0, 0.4])
def test_every_plane_of_a_tilt_series_lies_outside_the_missing_wedge(theta):
    """The view at θ projects along z′ = (−sin θ, 0, cos θ) in (x, y, z): it measures what is normal to it."""
    rng = np.random.default_rng(0)
    beam = np.array([np.cos(theta), 0, -np.sin(theta)])  # (z, y, x)
    k = rng.normal(size=(3, 50))
    k -= beam[:, None] * (beam @ k)
    assert wedge(-0.7, 0.4)(tuple(k)).all()
    assert not wedge(-0.7, 0.4)(tuple(beam[:, None])).any()  # nothing along any of the beams


def test_a_wedge_follows_the_sign_of_the_tilt():
    one = tuple(np.array([value]) for value in (np.sin(0.9), 0.0, np.cos(0.9)))  # k_z/k_x = tan 0.9
    assert wedge(0.0, 1.0)(one)
    assert not wedge(-1.0, 0.0)(one)
    assert wedge(0.0, 1.0)(tuple(-value for value in one))


def test_a_wedge_filtered_volume_agrees_inside_and_nowhere_else():
    shape, pixel, tilts = (32, 36, 40), (0.6, 0.5, 0.5), (-0.9, 0.6)
    truth = noise(shape, 0)
    k = np.meshgrid(
        *(np.fft.fftfreq(n, p) for n, p in zip(shape, pixel, strict=True)), indexing="ij"
    )
    angle = np.arctan(k[0] / np.where(k[2] == 0, 1e-9, k[2]))
    measured = (angle >= tilts[0]) & (angle <= tilts[1])
    measured[0, :, 0] = True
    measured &= np.roll(np.flip(measured), 1, (0, 1, 2))  # at Nyquist k and −k are one pixel
    filtered = np.fft.ifftn(np.fft.fftn(truth) * measured).real
    filled = np.fft.ifftn(np.fft.fftn(noise(shape, 1)) * ~measured).real
    curves = wedge_correlations(truth, filtered + filled, pixel, tilts)
    used = curves.outside.samples > 200
    assert used.sum() > 8
    np.testing.assert_allclose(curves.inside.correlation[:-1], 1, atol=0.02)
    scatter = curves.outside.correlation[used] * np.sqrt(curves.outside.samples[used])
    assert np.abs(scatter).max() < 4
    together = curves.inside.samples + curves.outside.samples
    np.testing.assert_allclose(together, fourier_correlation(truth, truth, pixel).samples)


@pytest.mark.parametrize("edge", [0.0, 0.2])
def test_cones_see_their_direction_alone(edge):
    """Volumes that agree within 0.5 rad of the z axis."""
    shape = (40, 40, 40)
    k = np.meshgrid(*(np.fft.fftfreq(n) for n in shape), indexing="ij")
    common = np.abs(k[0]) >= np.cos(0.5) * np.sqrt(sum(part**2 for part in k))
    common[20] = False  # at Nyquist k and −k are one pixel
    first, second = (np.fft.fftn(noise(shape, seed)) for seed in (0, 1))
    a, b = (np.fft.ifftn(image).real for image in (first, np.where(common, first, second)))
    axes = [(1, 0, 0), (0, 2, 0), (0, 1, -1)]
    along, *across = directional_correlations(a, b, 1.0, axes, 0.4 - edge / 2, edge)
    np.testing.assert_allclose(along.correlation[1:-1], 1, atol=1e-9)
    for curve in across:
        used = curve.samples > 50
        assert used.sum() > 8
        assert np.abs(curve.correlation[used] * np.sqrt(curve.samples[used])).max() < 4.5
    ball = fourier_correlation(a, b, 1.0)
    if not edge:
        assert along.samples[8:-1].sum() / ball.samples[8:-1].sum() == pytest.approx(
            1 - np.cos(0.4), rel=0.1
        )  # of the solid angle


def test_a_soft_cone_is_half_at_its_half_angle():
    angles = np.array([0.0, 0.2, 0.3, 0.4, 0.6])
    k = (np.cos(angles), np.sin(angles))
    np.testing.assert_allclose(cone((1, 0), 0.3, 0.2)(k), [1, 1, 0.5, 0, 0], atol=1e-9)
    np.testing.assert_allclose(cone((3, 0), 0.31)(k), [1, 1, 1, 0, 0])
    np.testing.assert_allclose(outside(cone((1, 0), 0.3))(k) + cone((1, 0), 0.3)(k), np.ones(5))


# Masks


def test_a_soft_mask_falls_as_a_cosine_over_its_edge():
    x = np.arange(60)
    support = np.broadcast_to(x <= 20, (5, 60))
    mask = soft_mask(support, 4.0, (0.3, 0.5))
    expected = np.where(x <= 20, 1, np.where(x >= 28, 0, 0.5 * (1 + np.cos(np.pi * (x - 20) / 8))))
    np.testing.assert_allclose(mask, np.broadcast_to(expected, mask.shape), atol=1e-12)


def test_a_full_window_leaves_all_independent_and_a_box_its_share():
    assert filling(np.ones((5, 6))) == pytest.approx(1)
    assert filling(np.arange(100) < 25) == pytest.approx(0.25)


def test_random_phases_keep_power_and_what_lies_below():
    image = noise((33, 40), 0) + 3
    drawn = with_random_phases(image, 0.5, 0.4, 7)
    assert np.isrealobj(drawn)
    before, after = np.fft.fft2(image), np.fft.fft2(drawn)
    k = np.hypot(np.fft.fftfreq(33, 0.5)[:, None], np.fft.fftfreq(40, 0.5))
    np.testing.assert_allclose(after[k <= 0.4], before[k <= 0.4], atol=1e-9)
    np.testing.assert_allclose(np.abs(after), np.abs(before), atol=1e-9)
    assert np.abs(np.mean((after * before.conj() / np.abs(before) ** 2)[k > 0.4])) < 0.1
    np.testing.assert_array_equal(drawn, with_random_phases(image, 0.5, 0.4, 7))


def test_the_control_finds_what_a_shared_tight_mask_makes():
    """Signal below 0.1, noise beyond: a hard mask smears the signal over all frequencies in both halves alike."""
    shape, cut = (48, 48, 48), 0.1
    signal = 20 * low_passed(noise(shape, 0), cut)
    halves = [signal + 0.3 * noise(shape, seed) for seed in (1, 2)]
    z, y, x = np.indices(shape) - 24
    tight = ((np.abs(z) < 9) & (np.abs(y + x) < 12)).astype(float)
    control = phase_randomised_control(*halves, 1.0, tight, cut)
    high = control.masked.frequency > 0.2
    assert control.masked.correlation[high].mean() > 0.3
    assert control.randomised.correlation[high].mean() == pytest.approx(
        control.masked.correlation[high].mean(), abs=0.05
    )
    assert abs(control.corrected.correlation[high].mean()) < 0.06
    low = control.masked.frequency < cut
    np.testing.assert_array_equal(
        control.corrected.correlation[low], control.masked.correlation[low]
    )
    true = phase_randomised_control(signal, halves[0], 1.0, soft_mask(tight > 0, 6.0), 0.05)
    assert (
        true.corrected.correlation[
            (true.masked.frequency > 0.06) & (true.masked.frequency < 0.09)
        ].min()
        > 0.95
    )
