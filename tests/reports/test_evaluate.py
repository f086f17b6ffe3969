"""The words in which results are evaluated: nothing is mended before it is measured."""

import numpy as np
from models import rng, thin

from jaxptycho.analysis.truth import Agreement
from jaxptycho.reports.evaluate import depth_rows, image_rows, truth_correlation


def agreement(factor: float) -> Agreement:
    truth = rng(0).normal(size=(40, 40))
    return Agreement(
        np.sign(factor), factor, np.zeros(2), factor * truth, truth, np.ones((40, 40), bool)
    )


def test_an_inverted_or_faint_phase_is_not_mended_before_it_is_measured():
    """NRMSE of a·φ against φ is |a − 1|."""
    for factor, nrmse in ((-1.0, 2.0), (0.5, 0.5), (1.0, 0.0)):
        rows = image_rows(agreement(factor))
        assert float(rows["NRMSE"]) == nrmse
    assert float(image_rows(agreement(-1.0))["PSNR"].split()[0]) < 20
    assert (
        float(image_rows(agreement(-1.0))["SSIM"]) < 0.6 < float(image_rows(agreement(1.0))["SSIM"])
    )


def test_the_region_compared_is_not_a_detail_of_both():
    """Independent noise on one pedestal in one disc: mean 0, within four standard deviations of 1/√samples."""
    y, x = np.indices((128, 128)) - 64
    inside, images = (
        np.hypot(y, x) < 45,
        [3.0 + rng(seed).normal(size=(128, 128)) for seed in (1, 2)],
    )
    curve = truth_correlation(thin(), Agreement(0.0, 0.0, np.zeros(2), *images, inside))
    rings = slice(2, None)
    weighed = curve.correlation[rings] * np.sqrt(curve.samples[rings])
    assert np.abs(weighed).max() < 4
    assert abs(weighed.mean()) < 4 / np.sqrt(len(weighed))


def test_the_depth_of_the_best_slab_is_told():
    """Slices in the wrong order correlate as well as in the right one."""
    matrix = np.array([[0.1, 0.9, 0.2], [0.8, 0.3, 0.1]])
    rows = depth_rows(matrix, np.array([6.0, 8.0]), 5.0)
    assert rows["correlation of the slices"] == "0.900, 0.800"
    assert rows["depth of the slabs most like them"] == "7.5, 2.5 Å, of the slices 3, 10 Å"
