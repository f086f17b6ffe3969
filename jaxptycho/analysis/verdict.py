"""Verdict of a run: does the model explain how patterns vary from position to position?

Loss, R and χ² compare a model with counting noise; a wrong geometry can improve all three on the
patterns that it was fitted to, since a free probe reproduces the mean pattern. The verdict
compares the model with the best prediction that needs no specimen: the mean pattern of its view,
scaled to the dose of each shot. With I the counts of a shot, M the prediction, d = ΣI,
x = √(I/d) and y = E√n/√d for Poisson counts n of mean d·M/ΣM, both less their dose-weighted means over the shots,

    variation V = d·Σx²,   explained Q = d·Σx² − d·Σ(x − y)² = d·Σ(2xy − y²).

Amplitudes have the same noise at every count (Bartlett 1936) and bound the effect of single bad
pixels; the means drop out, so that a first guess of the probe that is not yet right does no harm.
Predictions are worth something where the covariance C = d·Σxy is above its standard error, from
its spread over held-out shots, and the slope C/(d·Σy²) of measured on predicted variation is near
1: Q > 0 requires more than 1/2. Over-fitting and wrong geometries predict variation that is not there.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import poisson as poisson_distribution

from ..data import Batch, Dataset, make_batch, split
from ..inverse.microbatch import sum_over_shots
from ..model import Model

MIN_HELD_OUT = 8  # shots from which held-out ones are enough to judge by
MAX_SHOTS = 512  # looked at, of all views together
BATCH = 64  # shots
SIGNIFICANCE = 3.0  # standard errors of the covariance
MIN_SLOPE = 0.5  # of measured on predicted variation, ± its standard error; below it the mean predicts better
MIN_VARIATION = 1.05  # variation over counting noise from which patterns are said to vary
MIN_EXCESS = 4.0  # the same in standard errors of the noise
MIN_SHARE_LEARNT = 0.1  # of the variation of shots that were learnt from, which over-fitting reaches
GOOD_SHARE = 0.3  # of the variation, below which causes are named
MAX_OFFSET = 0.1  # misfit beyond that of the mean pattern, over the dose
RISE = 2.0  # of the loss within a step, from which it has diverged
OVERFIT = 2.0  # held-out loss over training loss
MIN_PIXEL = 0.1  # quanta expected of a pixel that χ² weighs

# sums over shots of the batches of one view
Sums = Callable[[Callable[[Model, Batch], jax.Array], int, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Evidence:
    """Sums over the judged shots, in squared amplitudes [quanta] where not stated otherwise."""

    shots: int
    held_out: bool  # False: the model was fitted to these shots
    dose: float = 0.0  # [quanta]
    variation: float = 0.0  # between patterns, V
    noise: float = 0.0  # expectation of V for Poisson counts of one pattern
    modelled: float = 0.0  # variation between predicted patterns
    covariance: float = 0.0  # C
    covariance_error: float = math.inf  # standard error
    noise_error: float = math.inf  # standard deviation of V for such counts, at most
    misfit: float = 0.0  # Σ(√I − √M)²
    misfit_mean_pattern: float = 0.0
    chi2: float = math.nan  # Pearson, over its expectation
    chi2_mean_pattern: float = math.nan  # that of the mean pattern

    @property
    def varies(self) -> bool:
        """True where the patterns differ by more than counting noise."""
        excess = self.variation - self.noise
        return excess > MIN_EXCESS * self.noise_error and self.variation > MIN_VARIATION * self.noise

    @property
    def explained(self) -> float:
        """Variation explained, Q."""
        return 2 * self.covariance - self.modelled

    @property
    def share(self) -> float:
        """Explained part of the variation beyond Poisson noise; negative if the mean predicts better."""
        excess = self.variation - self.noise
        return self.explained / excess if excess > 0 else math.nan

    @property
    def significant(self) -> bool:
        """True where the model predicts patterns better than the mean pattern does."""
        sure = self.covariance > SIGNIFICANCE * self.covariance_error
        return sure and self.covariance + self.covariance_error > MIN_SLOPE * self.modelled

    @property
    def offset(self) -> float:
        """Misfit beyond that of the mean pattern, as a fraction of the dose."""
        return (self.misfit - self.misfit_mean_pattern) / self.dose if self.dose > 0 else 0.0


@dataclass(frozen=True)
class Verdict:
    """Conclusion of a run in plain words; `causes` begins with the most likely one."""

    explains: bool
    lines: tuple[str, ...]
    causes: tuple[str, ...]
    evidence: Evidence

    def __str__(self) -> str:
        causes = [f"  {number}. {cause}" for number, cause in enumerate(self.causes, 1)]
        return "\n".join([*self.lines, *(["likely causes:"] if causes else []), *causes])


def judge(model: Model, data: Dataset, history: Iterable = (), hold_out: float = 0.0, seed: int = 0) -> Verdict:
    """Verdict about a model of `data`, judged by the shots that `split(data, hold_out, seed)` keeps aside.

    `history` holds rows with `step`, `loss` and `held_out`, or losses alone.
    """
    learnt, held = split(data, hold_out, seed)

    def sums(function, view, shots):
        size = min(BATCH, len(shots))
        parts = np.split(shots, range(size, len(shots), size))
        found = [compiled(model, make_batch(data, view, part, size), function) for part in parts]
        return np.sum([np.asarray(own, float) for own in found], 0)

    compiled = eqx.filter_jit(lambda model, batch, function: function(model, batch))
    return conclude(evidence(data, learnt, held, sums), history)


def evidence(data: Dataset, learnt: list[np.ndarray], held: list[np.ndarray], sums: Sums) -> Evidence:
    """Evidence from held-out shots, or from learnt ones where fewer than eight are held out.

    `sums(function, view, shots)` is the total of `function(model, batch)` over these shots.
    At most `MAX_SHOTS` are looked at, twice.
    """
    enough = sum(map(len, held)) >= MIN_HELD_OUT and any(len(own) > 1 for own in held)
    judged = _some(held if enough else learnt)
    totals, shots = np.zeros(_N_SUMS), 0
    for view, own in enumerate(judged):
        if len(own) < 2:
            continue
        dose = float(data.dose(view)[own].sum())
        means = sums(_mean_amplitudes, view, own) / dose
        pattern = np.fft.ifftshift(data.view(view).mean_pattern())
        reference = np.stack([*means, pattern / max(float(data.dose(view).mean()), 1e-30)])
        compare = eqx.Partial(_comparison, jnp.asarray(reference, jnp.result_type(float)), jnp.asarray(dose, float))
        totals += sums(compare, view, own)
        shots += len(own)
    if not shots:
        return Evidence(0, enough)
    return _evidence(totals, shots, enough)


def _evidence(totals: np.ndarray, shots: int, held_out: bool) -> Evidence:
    dose, variation, noise, noise_square, modelled, covariance, covariance_square = map(float, totals[:7])
    misfit, misfit_mean, pearson, expected, pearson_mean, expected_mean = map(float, totals[7:])
    return Evidence(
        shots=shots,
        held_out=held_out,
        dose=dose,
        variation=variation,
        noise=noise,
        modelled=modelled,
        covariance=covariance,
        covariance_error=_error_of_sum(covariance, covariance_square, shots),
        noise_error=math.sqrt(noise_square),
        misfit=misfit,
        misfit_mean_pattern=misfit_mean,
        chi2=pearson / max(expected, 1e-30),
        chi2_mean_pattern=pearson_mean / max(expected_mean, 1e-30),
    )


def _error_of_sum(total: float, squares: float, n: int) -> float:
    """Standard error of a sum of n independent values."""
    return math.sqrt(max(squares - total**2 / n, 0.0) * n / (n - 1))


def _some(shots: list[np.ndarray]) -> list[np.ndarray]:
    """At most about `MAX_SHOTS` random shots of all views, at least two of a view."""
    fraction = min(1.0, MAX_SHOTS / max(1, sum(map(len, shots))))

    def of_view(view: int, own: np.ndarray) -> np.ndarray:
        count = min(len(own), max(2, round(fraction * len(own))))
        return np.sort(np.random.default_rng([view, 4]).permutation(own)[:count])

    return [of_view(view, own) for view, own in enumerate(shots)]


def _amplitudes(predicted, counts):
    """Dose of a shot [quanta], and the amplitudes x and y of its normalized patterns."""
    counts, predicted = counts.astype(predicted.dtype), jnp.maximum(predicted, 0)
    dose, total = jnp.sum(counts), jnp.sum(predicted)
    measured = jnp.sqrt(counts / jnp.maximum(dose, 1e-30))
    modelled = _mean_and_variance(dose * predicted / jnp.maximum(total, 1e-30))[0]
    return dose, measured, modelled / jnp.sqrt(jnp.maximum(dose, 1e-30))


def _mean_amplitudes(model: Model, batch: Batch) -> jax.Array:
    """Σ d·x and Σ d·y of a batch [2, y, x]."""

    def of_shot(predicted, counts):
        dose, measured, modelled = _amplitudes(predicted, counts)
        return dose * jnp.stack([measured, modelled])

    return sum_over_shots(of_shot, model, batch)


_N_SUMS = 13


def _comparison(reference, all_dose, model: Model, batch: Batch) -> jax.Array:
    """The sums of `Evidence` over a batch; `reference` holds mean x, mean y and the mean pattern of dose 1."""
    return sum_over_shots(eqx.Partial(_compare_shot, reference, all_dose), model, batch)


def _compare_shot(reference, all_dose, predicted, counts):
    dose, measured, modelled = _amplitudes(predicted, counts)
    counts, predicted = counts.astype(predicted.dtype), jnp.maximum(predicted, 0)
    x, y = measured - reference[0], modelled - reference[1]
    expected = dose * reference[2]
    variance = _mean_and_variance(expected)[1]
    # the mean over the shots follows the noise of each by its part of the dose
    noise = jnp.sum(variance) * (1 - dose / all_dose)
    # 2σ⁴ of a Gaussian; σ² of a pixel with rare counts, which is 0 or 1
    noise_square = jnp.sum(2 * variance**2 + variance)
    covariance = dose * jnp.sum(x * y)
    values = [dose, dose * jnp.sum(x**2), noise, noise_square, dose * jnp.sum(y**2), covariance, covariance**2]
    misfits = [jnp.sum((jnp.sqrt(counts) - jnp.sqrt(mean)) ** 2) for mean in (predicted, expected)]
    return jnp.stack([*values, *misfits, *_pearson(predicted, counts), *_pearson(expected, counts)])


def _pearson(expected, counts):
    """Pearson's Σ(I − M)²/v and its expectation ΣM/v, v = max(M, 0.1)."""
    variance = jnp.maximum(expected, MIN_PIXEL)
    return jnp.sum((counts - expected) ** 2 / variance), jnp.sum(expected / variance)


def _mean_and_variance(expected):
    """Mean and variance of √n for Poisson counts n of these means: √μ and 1/4 at high counts, μ at low ones."""
    means, counts = np.concatenate([[0.0], np.geomspace(1e-4, 40, 160)]), np.arange(120)
    amplitude = (poisson_distribution.pmf(counts, means[:, None]) * np.sqrt(counts)).sum(1)
    variance = jnp.interp(expected, jnp.asarray(means), jnp.asarray(means - amplitude**2))
    return jnp.sqrt(jnp.maximum(expected - variance, 0)), variance


def conclude(evidence: Evidence, history: Iterable = ()) -> Verdict:
    """Verdict from the evidence and the history of a run (rows with `step`, `loss`, `held_out`, or losses)."""
    rows = [_row(row) for row in history]
    stage = [row for row in rows if row[0] == rows[-1][0]]
    first, last = (stage[0][1], stage[-1][1]) if stage else (math.nan, math.nan)
    held = stage[-1][2] if stage else None
    risen = not math.isfinite(last) if stage else False
    risen = risen or last > RISE * first > 0
    excess = held / last if held is not None and last > 0 else 0.0
    overfitted = excess > OVERFIT
    explains = not risen and _explains(evidence)
    lines = [_headline(evidence, explains)]
    if math.isfinite(evidence.chi2):
        lines.append(
            f"Pearson χ²: {evidence.chi2:.3g}, of the mean pattern {evidence.chi2_mean_pattern:.3g} "
            "(1 is counting noise)"
        )
    if len(stage) > 1 and last > first:
        lines.append(f"the loss rose from {first:.4g} in the first epoch of this step to {last:.4g} in its last")
    if overfitted:
        lines.append(f"the held-out loss is {excess:.1f} times the training loss: over-fitting or a wrong geometry")
    doubtful = not explains or (evidence.varies and evidence.significant and evidence.share < GOOD_SHARE)
    falling = len(stage) > 1 and last < 0.98 * stage[-2][1]
    causes = _causes(evidence, risen, overfitted, len(rows) < 3 or falling) if doubtful else []
    return Verdict(explains, tuple(lines), tuple(causes), evidence)


def _row(row) -> tuple[str, float, float | None]:
    if hasattr(row, "loss"):
        return row.step, float(row.loss), row.held_out
    return "", float(row), None


def _explains(found: Evidence) -> bool:
    if not (math.isfinite(found.misfit) and math.isfinite(found.explained)):
        return False
    if not found.varies:
        return found.offset < MAX_OFFSET
    return found.significant and (found.held_out or found.share > MIN_SHARE_LEARNT)


def _headline(found: Evidence, explains: bool) -> str:
    whose = f"{found.shots} held-out shots" if found.held_out else f"{found.shots} shots that it was fitted to"
    unseen = "" if found.held_out else "; over-fitting is not seen, hold out more with data.hold_out"
    if not found.varies and explains:
        return f"the patterns vary by no more than counting noise: nothing beyond the mean pattern to explain ({whose})"
    if not found.varies:
        return f"the model does not explain the patterns: the mean pattern fits far better ({whose})"
    share = (
        f"{min(100.0, 100 * found.share):.3g} % of what varies between patterns beyond counting noise ({whose}{unseen})"
    )
    if explains:
        return f"the model explains {share}"
    if found.significant and found.share > MIN_SHARE_LEARNT:
        return f"the run diverged; the model explains {share}"
    if found.significant:
        return f"the model does not explain the patterns, only {share}"
    return f"the model does not explain the patterns: it predicts them no better than their mean does ({whose}{unseen})"


UNITS = "units of the positions (Å) or of the pixel: positions in the file, data.pixel_angstrom"
AXES = "axes of the scan on the detector: data.scan_transform"
DEFOCUS = "sign or value of the defocus (> 0 is underfocus): probe.defocus_angstrom"
OPTICS = "units of semiangle (mrad) and voltage (kV): probe.semiangle_mrad, data.voltage_kv"
CORNER = "patterns whose zero frequency is not in the middle: counts in the file"
NEAR_FIELD = "in-line holograms taken for diffraction patterns: data.near_field, detector.effective_distance_angstrom"
PIXELS = "bad pixels or frames: mask in the file"
RATES = "rates too large: step.0.rates"
EPOCHS = "too few epochs or too small rates: step.0.epochs, step.0.rates"
SPECIMEN = "a specimen too simple for the data: specimen.slices, probe.modes"
NOISE = "fitted noise: fewer epochs, smaller rates or a penalty (step.0)"


def _causes(found: Evidence, risen: bool, overfitted: bool, early: bool) -> list[str]:
    """Likely causes, the most likely first."""
    geometry = [AXES, UNITS, DEFOCUS, NEAR_FIELD]
    if risen:
        return [RATES, OPTICS, PIXELS]
    if found.offset > MAX_OFFSET:
        return [*([EPOCHS] if early else []), OPTICS, CORNER, PIXELS, RATES, UNITS]
    if found.modelled < 0.02 * found.variation:
        return [*([EPOCHS] if early else []), UNITS, *(c for c in geometry if c != UNITS), EPOCHS][: 5 + early]
    causes = [*geometry, PIXELS, SPECIMEN, *([NOISE] if found.modelled > found.variation or overfitted else [])]
    return [EPOCHS, *causes] if early else causes
