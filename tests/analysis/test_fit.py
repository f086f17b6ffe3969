"""E, R and reduced χ² of a model: by hand, in the limit of true Poisson counts, and of a wrong model."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from models import GRID, N_SHOTS, rng, thin

from jaxptycho import Dataset, predict
from jaxptycho.analysis.fit import goodness_of_fit


def dataset(model, counts):
    return Dataset(
        np.fft.fftshift(counts, axes=(1, 2)), np.asarray(model.scan.positions.values), GRID
    )


def test_fit_by_hand():
    model = thin()
    patterns = np.asarray(predict(model, jnp.arange(N_SHOTS)))
    counts = rng(3).poisson(patterns)
    fit = goodness_of_fit(model, dataset(model, counts), size=3)
    difference = np.sqrt(counts) - np.sqrt(patterns)
    assert fit["E"] == pytest.approx(np.mean(difference**2), rel=1e-6)
    assert fit["R"] == pytest.approx(np.abs(difference).sum() / np.sqrt(counts).sum(), rel=1e-6)
    variance = np.maximum(patterns, 0.1)
    chi2 = np.sum((counts - patterns) ** 2 / variance) / np.sum(patterns / variance)
    assert fit["chi2"] == pytest.approx(chi2, rel=1e-6)
    ratio = np.where(counts > 0, counts, 1) / np.where(counts > 0, patterns, 1)
    deviance = 2 * np.mean(patterns - counts + counts * np.log(ratio))
    assert fit["deviance"] == pytest.approx(deviance, rel=0.02)


@pytest.mark.parametrize("dose", [0.2, 50.0])
def test_the_true_model_has_a_reduced_chi_squared_of_one(dose):
    """Bright or dark, and of the chosen shots alone."""
    model = thin()
    model = eqx.tree_at(lambda m: m.probe.waves, model, model.probe.waves * np.sqrt(dose))
    patterns = np.asarray(predict(model, jnp.arange(N_SHOTS)))
    counts = rng(4).poisson(patterns)
    counts[0] = 7 * patterns[0]  # held back from the judgement
    fit = goodness_of_fit(model, dataset(model, counts), [np.arange(1, N_SHOTS)])
    assert fit["chi2"] == pytest.approx(1, abs=0.1)
    if dose > 1:
        assert fit["deviance"] == pytest.approx(1, abs=0.1)


def test_contrast_reversed_is_not_agreement():
    model = thin()
    turned = eqx.tree_at(lambda m: m.specimen.phase, model, -model.specimen.phase)
    data = dataset(model, np.asarray(predict(model, jnp.arange(N_SHOTS))))
    good, bad = goodness_of_fit(model, data), goodness_of_fit(turned, data)
    assert good["R"] < 1e-3 < bad["R"]
    assert good["chi2"] < 1e-3 < 0.1 < bad["chi2"]
