"""How well a model explains the counts."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..data import Batch, Dataset, make_batch
from ..inverse.losses import poisson
from ..inverse.microbatch import sum_over_shots
from ..model import Model

SUMS = 6  # that a fit is judged by
LEAST = 0.1  # quanta: less than this is never expected of a pixel when chi2 weighs it


def goodness_of_fit(model: Model, data: Dataset, shots=None, size: int = 64) -> dict[str, float]:
    """E, R, chi2 and deviance over all patterns, or over `shots` (a list over views).

    With I measured and M predicted: E is the mean of (√I − √M)² over pixels and patterns,
    R = Σ|√I − √M| / Σ√I.

    chi2 is Pearson's Σ(I − M)²/v over its expectation ΣM/v, where v = max(M, 0.1): 1 for
    Poisson counts of the true model however dark the pixels. It is the plain reduced χ² (pixels,
    no parameters subtracted) where M ≥ 0.1; of patterns that the model was fitted to it is too
    small, so take held-out ones. deviance is the mean of 2(M − I + I log(I/M)), about 1 at
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
    """E, R, chi2 and deviance of so many shots of `data`, whose `fit_sums` are these in all."""
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
    """The sums over a batch's shots that `measures` are made of."""

    def of_shot(predicted, counts):
        counts, expected = counts.astype(predicted.dtype), jnp.maximum(predicted, 0)
        difference, seen = jnp.sqrt(expected) - jnp.sqrt(counts), jnp.sqrt(counts)
        variance = jnp.maximum(expected, LEAST)
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
