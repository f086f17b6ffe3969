"""Counting noise of amplitudes √n of Poisson counts n: its moments, and its estimate from counts.

The variance of √n is nearly the same at every mean (Bartlett 1936): μ at low ones, 1/4 at high.
"""

from collections.abc import Sequence
from functools import cache
from math import comb
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import poisson

MAX_EXACT_COUNTS = 20  # up to which the unbiased estimate has no rounding errors
ALTERNATING = 4.0, 16.0  # counts, range in which its alternation is damped
MIN_CONSTANT_MEAN = 40.0  # mean, above which variances are constant
COUNTS = np.arange(120)


def amplitude_moments(expected: Any) -> tuple[jax.Array, jax.Array]:
    """Mean and variance of √n for Poisson counts n of these means."""
    variance = _interpolated(expected, *_variances())
    return jnp.sqrt(jnp.maximum(expected - variance, 0)), variance


def noise_of_counts(counts: Any) -> jax.Array:
    """Unbiased estimate of the variance of √n from single Poisson counts n of any mean.

    With a second count n′ of the same mean, var √n = E(n − √n √n′). The estimate h(n) has the
    same power series in the mean, so that E h(n) = var √n; its alternation between even and odd
    counts, without effect at high means, is damped.
    """
    table = _unbiased()
    return _interpolated(counts, np.arange(len(table)), table)


def spread_of_noise(expected: Any) -> jax.Array:
    """Variance of (√n − E√n)² − `noise_of_counts(n)` for Poisson counts n of these means."""
    return _interpolated(expected, *_spread())


def _interpolated(values: Any, places: np.ndarray, table: np.ndarray) -> jax.Array:
    """Interpolation in a table, in the precision of the values."""
    dtype = jnp.result_type(values, float)
    return jnp.interp(values, jnp.asarray(places, dtype), jnp.asarray(table, dtype))


@cache
def _spread() -> tuple[np.ndarray, np.ndarray]:
    means, weights = _distributions()
    variances = _variances()[1]
    amplitude = np.sqrt(np.maximum(means - variances, 0))[:, None]
    table = _unbiased()
    estimate = np.interp(COUNTS, np.arange(len(table)), table)
    difference = (np.sqrt(COUNTS) - amplitude) ** 2 - estimate
    mean = (weights * difference).sum(1)
    return means, (weights * difference**2).sum(1) - mean**2


@cache
def _distributions() -> tuple[np.ndarray, np.ndarray]:
    """Means, and the probabilities [mean, count] of `COUNTS` for each."""
    means = np.concatenate([[0.0], np.geomspace(1e-4, MIN_CONSTANT_MEAN, 160)])
    return means, poisson.pmf(COUNTS, means[:, None])


@cache
def _variances() -> tuple[np.ndarray, np.ndarray]:
    means, weights = _distributions()
    return means, means - (weights @ np.sqrt(COUNTS)) ** 2


@cache
def _unbiased() -> np.ndarray:
    """Estimate h(n) from 0 to 40 counts: n! times the coefficients of e^μ var √n in powers of μ."""
    pairs = [
        sum(comb(s, j) * (j * (s - j)) ** 0.5 for j in range(s + 1))
        for s in range(MAX_EXACT_COUNTS + 2)
    ]
    exact = np.array([n - _differences(pairs, n) for n in range(MAX_EXACT_COUNTS + 2)])
    smooth = (exact[:-2] + 2 * exact[1:-1] + exact[2:]) / 4
    kept = np.interp(np.arange(1, MAX_EXACT_COUNTS + 1), ALTERNATING, (1.0, 0.0))
    damped = smooth + kept * (exact[1:-1] - smooth)
    means, variances = _variances()
    bright = np.interp(np.arange(MAX_EXACT_COUNTS + 1, MIN_CONSTANT_MEAN + 1), means, variances)
    return np.concatenate([[0.0], damped, bright])


def _differences(values: Sequence[float], n: int) -> float:
    """n-th forward difference of a sequence at 0."""
    return sum(comb(n, s) * (-1) ** (n - s) * values[s] for s in range(n + 1))
