"""Goodness of fit of a model to counts."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..data import Batch, Dataset, make_batch
from ..inverse.losses import poisson
from ..inverse.microbatch import sum_over_shots
from ..model import Model

SUMS = 6  # number of sums of `fit_sums`
MIN_VARIANCE = 0.1  # quanta, lower limit of the variance in chi2


def goodness_of_fit(
    model: Model, data: Dataset, shots: Any = None, size: int = 64
) -> dict[str, float]:
    """Measures E, R, chi2 and deviance over all patterns, or over `shots` (a list over views).

    With I measured and M predicted: E is the mean of (√I − √M)² over pixels and patterns,
    R = Σ|√I − √M| / Σ√I.

    chi2 is Pearson's Σ(I − M)²/v over its expectation ΣM/v, where v = max(M, 0.1): 1 for
    Poisson counts of the true model at any dose. Where M ≥ 0.1 it is the reduced χ² (pixels, no
    parameters subtracted); it is too small for patterns that the model was fitted to, so use
    held-out ones. deviance is the mean of 2(M − I + I log(I/M)), about 1 at
    high counts and less where fewer than one quantum is expected.
    """
    shots = [np.arange(n) for n in data.n_shots] if shots is None else shots
    totals = np.zeros(SUMS)
    for view, mine in enumerate(shots):
        for start in range(0, len(mine), size):
            batch = make_batch(data, view, mine[start : start + size], min(size, len(mine)))
            totals += np.asarray(_sums(model, batch), float)
    return measures(totals, data, sum(map(len, shots)))


def measures(totals: np.ndarray, data: Dataset, shots: int) -> dict[str, float]:
    """Measures E, R, chi2 and deviance of `shots` shots of `data` from their total `fit_sums`."""
    squares, differences, amplitudes, pearson, expected, deviance = map(float, totals)
    values = shots * (
        data.grid.shape[0] * data.grid.shape[1] if data.mask is None else int(data.mask.sum())
    )
    return {
        "E": squares / values,
        "R": differences / amplitudes,
        "chi2": pearson / expected,
        "deviance": deviance / values,
    }


def fit_sums(model: Model, batch: Batch) -> jax.Array:
    """Sums over a batch's shots, from which `measures` are computed."""

    def of_shot(predicted: jax.Array, counts: jax.Array) -> jax.Array:
        counts = counts.astype(predicted.dtype)
        expected = jnp.maximum(predicted, 0)
        difference = jnp.sqrt(expected) - jnp.sqrt(counts)
        seen = jnp.sqrt(counts)
        variance = jnp.maximum(expected, MIN_VARIANCE)
        pixels = [
            difference**2,
            jnp.abs(difference),
            seen,
            (counts - expected) ** 2 / variance,
            expected / variance,
            2 * poisson(expected, counts),
        ]
        return jnp.stack([jnp.sum(values) for values in pixels])

    return sum_over_shots(of_shot, model, batch)


_sums = eqx.filter_jit(fit_sums)
