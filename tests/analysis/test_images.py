"""Image metrics against scikit-image, and by hand where it has none."""

import numpy as np
import pytest
from skimage import metrics

from jaxptycho.analysis.images import nrmse, psnr, ssim, ssim_map


def pair(shape, seed=0):
    rng = np.random.default_rng(seed)
    truth = np.cumsum(rng.normal(size=shape), -1)
    return 0.9 * truth + rng.normal(size=shape), truth


@pytest.mark.parametrize("shape", [(40, 33), (16, 20, 18)])
def test_as_scikit_image_has_it(shape):
    image, truth = pair(shape)
    span = np.ptp(truth)
    assert psnr(image, truth) == pytest.approx(
        metrics.peak_signal_noise_ratio(truth, image, data_range=span)
    )
    assert nrmse(image, truth) == pytest.approx(metrics.normalized_root_mse(truth, image))
    options = {
        "gaussian_weights": True,
        "sigma": 1.5,
        "use_sample_covariance": False,
        "data_range": span,
    }
    mean, full = metrics.structural_similarity(image, truth, full=True, **options)
    assert ssim(image, truth) == pytest.approx(mean)
    np.testing.assert_allclose(ssim_map(image, truth, span), full, atol=1e-9)
    assert ssim(image, truth, span=2 * span) == pytest.approx(
        metrics.structural_similarity(image, truth, **options | {"data_range": 2 * span})
    )


def test_equal_images_are_perfect():
    _, truth = pair((20, 20))
    assert (nrmse(truth, truth), psnr(truth, truth), ssim(truth, truth)) == (
        0,
        np.inf,
        pytest.approx(1),
    )
    assert ssim(-truth + 2 * truth.mean(), truth) < 0.5


def test_only_what_counts_is_compared():
    image, truth = pair((30, 30))
    where = np.zeros((30, 30), bool)
    where[8:22, 8:22] = True
    spoilt = np.where(where, image, 1e3)
    assert psnr(spoilt, truth, 10.0, where) == pytest.approx(
        10 * np.log10(100 / np.mean((image - truth)[where] ** 2))
    )
    assert nrmse(spoilt, truth, where) == nrmse(image[8:22, 8:22], truth[8:22, 8:22])
    inside = ssim_map(image, truth, np.ptp(truth))[where].mean()
    assert ssim(image, truth, where=where) == pytest.approx(inside)


def test_complex_waves_have_an_error_too():
    wave = np.exp(1j * np.linspace(0, 3, 50))
    assert nrmse(wave * np.exp(0.1j), wave) == pytest.approx(2 * np.sin(0.05))


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="bring both to one grid"):
        nrmse(np.ones((4, 4)), np.ones((4, 5)))
    with pytest.raises(ValueError, match="no pixel is left"):
        psnr(np.ones((4, 4)), np.ones((4, 4)), where=np.zeros((4, 4), bool))
    with pytest.raises(ValueError, match="too small for SSIM"):
        ssim(np.ones((10, 40)), np.ones((10, 40)))
