"""The words in which results are judged: nothing is mended before it is measured."""

import numpy as np
from models import rng

from jaxptycho.analysis.truth import Agreement
from jaxptycho.app.judging import image_rows


def agreement(factor: float) -> Agreement:
    truth = rng(0).normal(size=(40, 40))
    return Agreement(np.sign(factor), factor, np.zeros(2), factor * truth, truth, np.ones((40, 40), bool))


def test_an_inverted_or_faint_phase_is_not_mended_before_it_is_measured():
    """NRMSE of a·φ against φ is |a − 1|."""
    for factor, nrmse in ((-1.0, 2.0), (0.5, 0.5), (1.0, 0.0)):
        rows = image_rows(agreement(factor))
        assert float(rows["NRMSE"]) == nrmse
    assert float(image_rows(agreement(-1.0))["PSNR"].split()[0]) < 20
    assert float(image_rows(agreement(-1.0))["SSIM"]) < 0.6 < float(image_rows(agreement(1.0))["SSIM"])
