"""Noise, correction, cautions and figures of the pictures."""

import numpy as np
import pytest
import sines
from matplotlib.figure import Figure
from scipy import ndimage

from jaxptycho import direct

pytestmark = pytest.mark.usefixtures("quick_to_compile")
LENS = sines.optics(defocus=150.0)
PLACES = sines.positions()


@pytest.fixture(scope="module")
def vacuum():
    """Patterns of 300 counts per pixel without a specimen, ten times."""
    rate = 300 * sines.patterns(LENS, (1, 2), PLACES).mean(0) * np.ones((len(PLACES), 1, 1))
    return [np.random.default_rng(seed).poisson(rate).astype(float) for seed in range(10)]


@pytest.mark.parametrize(
    "method",
    [
        direct.single_sideband,
        direct.optimum_bright_field,
        direct.matched_filter,
        direct.parallax,
        direct.wigner_deconvolution,
    ],
    ids=lambda m: m.__name__,
)
def test_noise_of_counts_is_the_stated_one(method, vacuum):
    placement = direct.place(PLACES, taper=3)
    pictures = [method(sines.stack(counts, PLACES), placement, LENS) for counts in vacuum]
    found = np.mean([np.abs(p.spectrum) ** 2 for p in pictures], axis=0)
    stated = pictures[0].noise
    clear = stated > 0.2 * stated.max()
    clear[0, 0] = False
    clear[:, -1] = False  # an image is real: half the noise at its highest frequency
    tolerance = 0.2 if method is direct.wigner_deconvolution else 0.1
    assert found[clear].sum() == pytest.approx(stated[clear].sum(), rel=tolerance)


def test_optimum_bright_field_has_white_noise():
    counts = 100 * sines.patterns(LENS, (1, 2), PLACES)
    picture = direct.optimum_bright_field(sines.stack(counts, PLACES), direct.place(PLACES), LENS)
    inside = picture.noise[picture.noise > 0]
    # at the edge of the disc, pixels count fewer electrons
    np.testing.assert_allclose(inside, inside.mean(), rtol=0.15)


def blobs(strength, dose=None, seed=0):
    """Stack of a scan over blobs of a phase [rad], and their truth at the positions."""
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.normal(size=(24, 24)), 2.0, mode="wrap")
    field *= strength / field.std()
    ky, kx = (np.asarray(k) for k in sines.GRID.frequencies())
    spectrum = np.asarray(direct.pupil(LENS, np.stack(np.broadcast_arrays(ky, kx), -1)))
    ramps = np.exp(-2j * np.pi * (ky * PLACES[:, 0, None, None] + kx * PLACES[:, 1, None, None]))
    counts = np.abs(np.fft.fft2(np.fft.ifft2(spectrum * ramps) * np.exp(1j * field))) ** 2
    counts = counts if dose is None else rng.poisson(dose * counts)
    return sines.stack(counts.astype(float), PLACES), field[::2, ::2]


@pytest.mark.parametrize("seed", range(3))
def test_correction_restores_the_phase(seed):
    stack, truth = blobs(0.05, 2000.0, seed)
    truth = truth - truth.mean()
    for method in (direct.single_sideband, direct.optimum_bright_field, direct.matched_filter):
        phase = method(stack, direct.place(PLACES), LENS).corrected().image
        assert np.corrcoef(phase.ravel(), truth.ravel())[0, 1] > 0.93
        assert 0.7 < np.vdot(phase, truth) / np.vdot(truth, truth) < 1.1


def test_correction_of_noise_is_nothing(vacuum):
    picture = direct.single_sideband(sines.stack(vacuum[0], PLACES), direct.place(PLACES), LENS)
    bare = np.fft.irfft2(
        picture.spectrum / np.maximum(np.abs(picture.transfer), 1e-3), picture.image.shape
    )
    assert picture.corrected().image.std() < 0.3 * bare.std()


def test_only_a_strong_phase_is_cautioned():
    weak, strong = (blobs(s)[0] for s in (0.1, 2.0))
    placement = direct.place(PLACES)
    assert direct.matched_filter(weak, placement, LENS).caution is None
    words = direct.matched_filter(strong, placement, LENS).caution
    assert words is not None
    assert "qualitative" in words
    assert direct.modulation(weak) < 0.3 < direct.modulation(strong)


@pytest.mark.parametrize("seed", range(2))
def test_wigner_deconvolution_keeps_a_stronger_phase(seed):
    stack, truth = blobs(0.4, seed=seed)
    phases = [
        method(stack, direct.place(PLACES), LENS).image
        for method in (direct.wigner_deconvolution, direct.matched_filter)
    ]
    r = [np.corrcoef(phase.ravel(), truth.ravel())[0, 1] for phase in phases]
    assert r[0] > 0.9


def test_pictures_draw_themselves_with_their_caution():
    picture = direct.matched_filter(blobs(2.0)[0], direct.place(PLACES), LENS)
    figure = picture.show()
    assert isinstance(figure, Figure)
    assert "qualitative" in figure.get_supxlabel()
    assert picture.pixel == pytest.approx((1.0, 1.0))
    assert picture.corner == pytest.approx((0.0, 0.0))


@pytest.mark.parametrize("method", [direct.matched_filter, direct.wigner_deconvolution])
def test_a_bare_division_is_refused(method):
    with pytest.raises(ValueError, match="positive fraction"):
        method(blobs(0.1)[0], direct.place(PLACES), LENS, epsilon=0.0)


def test_fusion_weighs_pictures_by_their_signal_to_noise():
    """A clean and a noisy picture of one specimen: the fused one follows the clean one."""
    rng = np.random.default_rng(0)
    truth = ndimage.gaussian_filter(rng.normal(size=(40, 40)), 2.0, mode="wrap")
    grid = direct.ScanGrid(np.zeros(2), np.eye(2), (40, 40))

    def half(noise, scale=1.0):
        image = scale * truth + rng.normal(0, noise * truth.std(), truth.shape)
        flat = np.ones((40, 21))
        return direct.DirectImage(image, grid, flat, flat, "half")

    clean, noisy = [half(0.3), half(0.3)], [half(3.0, -2.0), half(3.0, -2.0)]
    for bright, dark in ((clean, noisy), (noisy, clean)):
        fused = direct.fused(tuple(bright), tuple(dark))
        sign = np.sign(np.vdot(bright[0].image, truth))
        assert np.corrcoef((sign * fused.image).ravel(), truth.ravel())[0, 1] > 0.97
        assert "qualitative" in fused.caution


def test_halves_alternate():
    first, second = direct.shot_halves(PLACES)
    np.testing.assert_array_equal(first + second, 1)
    assert first.sum() == len(PLACES) / 2
