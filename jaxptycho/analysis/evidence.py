"""Evidence of how well a model explains how patterns vary from position to position.

Loss, R and χ² compare a model with counting noise; a wrong geometry can improve all three on the
patterns that it was fitted to, since a free probe reproduces the mean pattern. The evidence
compares the model with the best prediction that needs no specimen: the mean pattern of its view,
scaled to the dose of each shot. With I the counts of a shot, M the prediction, d = ΣI,
x = √(I/d) and y = E√n/√d for Poisson counts n of mean d·M/ΣM, both less the E√n/√d of the mean
pattern at this dose (which varies with d where a pixel holds few counts), and less their
dose-weighted means over the shots,

    variation V = d·Σx²,   explained Q = d·Σx² − d·Σ(x − y)² = d·Σ(2xy − y²).

Amplitudes have nearly the same noise at every count (Bartlett 1936), so that dark pixels weigh
no more than others, and bound the effect of single bad pixels; the means drop out, so that a first
guess of the probe that is not yet right does no harm. The noise N in V has an unbiased estimate
from the counts (`counting_noise`): V/N of the mean pattern and (V − Q)/N of the model take the
place of χ², 1 is counting noise, and Q/(V − N) is the explained share.

Predictions are worth something where the covariance C = d·Σxy is above its standard error, and
Q > 0: the slope C/(d·Σy²) of measured on predicted variation is above 1/2. Errors are from the
spread over held-out shots about what is common to them, the slope and the share, since some shots
vary far more than others. Over-fitting and wrong geometries predict variation that is not there.
How much a model could explain is known only as well as the noise of the camera.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..data import Batch, Dataset
from ..data.batching import MIN_HELD_OUT
from ..inverse.microbatch import sum_over_shots
from ..model import Model
from .counting_noise import amplitude_moments, noise_of_counts, spread_of_noise
from .electron_response import noise_of_a_pixel

MAX_SHOTS = 512  # looked at, of all views together
SIGNIFICANCE = 3.0  # standard errors of the covariance
MIN_EXCESS = 4.0  # standard errors of the variation beyond noise
POISSON_TOLERANCE = 0.05  # relative error of the noise of single quanta
GAIN_TOLERANCE = 0.1  # of a camera whose noise is measured
MAX_SHARE_ERROR = 0.25  # standard error above which a share says nothing

# sums over shots of the batches of one view
Sums = Callable[[Callable[[Model, Batch], jax.Array], int, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Evidence:
    """Sums over the judged shots, in squared amplitudes [quanta] where not stated otherwise."""

    shots: int
    held_out: bool  # False: the model was fitted to these shots
    dose: float = 0.0  # [quanta]
    variation: float = 0.0  # between patterns, V
    noise: float = 0.0  # of V, N
    excess_error: float = math.inf  # standard error of V − N without variation
    pixel_noise: float = 1.0  # variance over mean of the counts of a pixel
    modelled: float = 0.0  # variation between predicted patterns
    covariance: float = 0.0  # C
    covariance_error: float = math.inf  # standard error
    share_error: float = math.inf  # standard error of `share`
    misfit: float = 0.0  # Σ(√I − √M)²
    misfit_mean_pattern: float = 0.0

    @property
    def excess(self) -> float:
        """Variation between patterns beyond noise."""
        return self.variation - self.noise

    @property
    def noise_tolerance(self) -> float:
        """Error of the noise, as far as it is not known for this camera."""
        single = self.pixel_noise == 1
        return self.noise * (POISSON_TOLERANCE if single else GAIN_TOLERANCE)

    @property
    def varies(self) -> bool:
        """True where the patterns differ by more than noise, or by what the model predicts."""
        beyond = self.excess > max(MIN_EXCESS * self.excess_error, self.noise_tolerance)
        return beyond or (self.held_out and self.predicts)

    @property
    def explained(self) -> float:
        """Variation explained, Q."""
        return 2 * self.covariance - self.modelled

    @property
    def share(self) -> float:
        """Explained part of the variation beyond noise; negative if the mean is better."""
        return self.explained / self.excess if self.excess > 0 else math.nan

    @property
    def noise_limited(self) -> bool:
        """True where noise hides how much there is to explain."""
        known = self.excess > 2 * self.noise_tolerance
        return not (known and self.share_error < MAX_SHARE_ERROR)

    @property
    def share_at_most(self) -> float:
        """Two standard errors above `share`, and for the largest noise that the camera may have."""
        if self.noise_limited:
            return math.inf
        reachable = self.excess - self.noise_tolerance
        return (self.share + 2 * self.share_error) * self.excess / reachable

    @property
    def predicts(self) -> bool:
        """True where predicted differences between patterns are related to measured ones."""
        return self.covariance > SIGNIFICANCE * self.covariance_error

    @property
    def significant(self) -> bool:
        """True where the model predicts patterns better than the mean pattern does.

        Where noise is most of the variation, a right model fits some of it: no margin then.
        """
        margin = 0.0 if self.noise_limited else self.share_error * self.excess
        return self.predicts and self.explained > margin

    @property
    def offset(self) -> float:
        """Misfit beyond that of the mean pattern, as a fraction of the dose."""
        return (self.misfit - self.misfit_mean_pattern) / self.dose if self.dose > 0 else 0.0


def evidence(
    data: Dataset, learnt: list[np.ndarray], held: list[np.ndarray], sums: Sums
) -> Evidence:
    """Evidence from held-out shots, or from learnt ones where fewer than eight are held out.

    `sums(function, view, shots)` is the total of `function(model, batch)` over these shots.
    At most `MAX_SHOTS` are looked at, twice.
    """
    enough = sum(map(len, held)) >= MIN_HELD_OUT and any(len(shots) > 1 for shots in held)
    pixel_noise = noise_of_a_pixel(data)
    totals = np.zeros(N_SUMS)
    count = 0
    for view, shots in enumerate(_subset(held if enough else learnt)):
        if len(shots) < 2:
            continue
        dose = float(data.dose(view)[shots].sum())
        pattern = np.fft.ifftshift(data.view(view).mean_pattern())
        pattern = jnp.asarray(pattern / max(float(data.dose(view).mean()), 1e-30), float)
        means = sums(eqx.Partial(_mean_amplitudes, pattern), view, shots) / dose
        reference = jnp.asarray([*means, pattern], float)
        compare = eqx.Partial(_comparison, reference, jnp.asarray([dose, pixel_noise], float))
        totals += sums(compare, view, shots)
        count += len(shots)
    if not count:
        return Evidence(0, enough)
    return _evidence(totals, count, enough, pixel_noise)


N_SUMS = 13


def _evidence(totals: np.ndarray, shots: int, held_out: bool, pixel_noise: float) -> Evidence:
    dose, variation, excess, modelled, covariance, misfit, misfit_mean = map(float, totals[:7])
    # of every shot: c covariance, m modelled, e excess, q = 2c − m
    null, cc, cm, mm, ee, qe = map(float, totals[7:])
    qq = 4 * cc - 4 * cm + mm
    slope = covariance / modelled if modelled > 0 else 0.0
    share = (2 * covariance - modelled) / excess if excess > 0 else math.nan

    def error(squares: float) -> float:
        """Standard error of a sum of residuals of zero mean, from the sum of their squares."""
        return math.sqrt(max(squares, 0.0) * shots / (shots - 1))

    return Evidence(
        shots=shots,
        held_out=held_out,
        dose=dose,
        variation=variation,
        noise=variation - excess,
        excess_error=math.sqrt(null),
        pixel_noise=pixel_noise,
        modelled=modelled,
        covariance=covariance,
        covariance_error=error(cc - 2 * slope * cm + slope**2 * mm),
        share_error=max(error(qq - 2 * share * qe + share**2 * ee), math.sqrt(null)) / excess
        if excess > 0
        else math.inf,
        misfit=misfit,
        misfit_mean_pattern=misfit_mean,
    )


def _subset(shots: list[np.ndarray]) -> list[np.ndarray]:
    """At most about `MAX_SHOTS` random shots of all views, at least two of a view."""
    fraction = min(1.0, MAX_SHOTS / max(1, sum(map(len, shots))))

    def of_view(view: int, shots: np.ndarray) -> np.ndarray:
        count = min(len(shots), max(2, round(fraction * len(shots))))
        return np.sort(np.random.default_rng([view, 4]).permutation(shots)[:count])

    return [of_view(view, of_one) for view, of_one in enumerate(shots)]


def _amplitudes(pattern, predicted, counts):
    """Dose of a shot [quanta], and the amplitudes of its normalized patterns, measured and
    modelled, beyond those of the mean `pattern` of dose 1.
    """
    counts = counts.astype(predicted.dtype)
    predicted = jnp.maximum(predicted, 0)
    dose = jnp.sum(counts)
    root = jnp.sqrt(jnp.maximum(dose, 1e-30))
    total = jnp.sum(predicted)
    modelled = amplitude_moments(dose * predicted / jnp.maximum(total, 1e-30))[0]
    of_mean = amplitude_moments(dose * pattern)[0]
    return dose, (jnp.sqrt(counts) - of_mean) / root, (modelled - of_mean) / root


def _mean_amplitudes(pattern: jax.Array, model: Model, batch: Batch) -> jax.Array:
    """Dose-weighted sums of `_amplitudes` over a batch [2, y, x]."""

    def of_shot(predicted: jax.Array, counts: jax.Array) -> jax.Array:
        dose, measured, modelled = _amplitudes(pattern, predicted, counts)
        return dose * jnp.stack([measured, modelled])

    return sum_over_shots(of_shot, model, batch)


def _comparison(reference, scale, model: Model, batch: Batch) -> jax.Array:
    """The sums of `Evidence` over a batch.

    `reference` holds the mean amplitudes and the mean pattern of dose 1; `scale` is the dose of all
    shots together and the counts that a quantum makes.
    """
    return sum_over_shots(eqx.Partial(_compare_shot, reference, scale), model, batch)


def _compare_shot(reference, scale, predicted, counts):
    dose, measured, modelled = _amplitudes(reference[2], predicted, counts)
    counts = counts.astype(predicted.dtype)
    predicted = jnp.maximum(predicted, 0)
    x, y = measured - reference[0], modelled - reference[1]
    all_dose, pixel_noise = scale
    variation = dose * jnp.sum(x**2)
    noise = pixel_noise * jnp.sum(noise_of_counts(counts / pixel_noise))
    # the mean over the shots follows the noise of each by its part of the dose
    excess = variation - noise * (1 - dose / all_dose)
    modelled = dose * jnp.sum(y**2)
    covariance = dose * jnp.sum(x * y)
    explained = 2 * covariance - modelled
    expected = predicted, dose * reference[2]
    misfits = [jnp.sum((jnp.sqrt(counts) - jnp.sqrt(mean)) ** 2) for mean in expected]
    null = pixel_noise**2 * jnp.sum(spread_of_noise(expected[1] / pixel_noise))
    squares = [covariance**2, covariance * modelled, modelled**2, excess**2, explained * excess]
    return jnp.stack([dose, variation, excess, modelled, covariance, *misfits, null, *squares])
