"""Replay of a recorded series: errors that a predictor would have made before each exposure.

One target, whose shift at every tilt is in the log. An error is the logged less the predicted
shift, both from the tilts exposed before alone.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from .belief import HUBER, LOSS, TargetMeasurement
from .community_rule import CommunityRule
from .geometry import TEM, Exposures
from .precision import in_double_precision
from .priors import GeometryPrior
from .tilt_log import TiltLog

RECORDED_SIGMA = 20.0  # Å, of the shift by correlation at one tilt
MIN_INNOVATIONS = 4  # from which on their own spread decides what is unusual
SECONDS_PER_TILT = 60.0
NORMAL_MEDIAN = 0.6745  # of |normal numbers|
MIN_SCALE = 0.2


@dataclass(frozen=True)
class LogReplay:
    """One-step errors (x, y), their predicted sigma, and height z₀ (upstream) [Å].

    `focus` is the change of focus since the first tilt that the predictor would have made, upstream
    for the rule and as underfocus of a TEM for the filter, which is the same. `lost` marks tilts at
    which the target counts as lost. NaN before the first prediction.
    """

    error: Float[np.ndarray, "tilt 2"]
    sigma: Float[np.ndarray, "tilt 2"]
    height: Float[np.ndarray, " tilt"]
    focus: Float[np.ndarray, " tilt"]
    lost: Bool[np.ndarray, " tilt"]


def replay_rule(log: TiltLog, n0: float = 0.0) -> LogReplay:
    """Replay of the community rule, which takes tilts as nominal and x as constant."""
    step = log.increment
    nominal = np.round(log.angle / step) * step
    count = len(nominal)
    branches = {s: CommunityRule.begin(nominal[0], s * step, n0, log.shift[0, 1]) for s in (1, -1)}
    last_x = dict.fromkeys(branches, log.shift[0, 0])
    focus = dict.fromkeys(branches, 0.0)
    replay = _empty(count)
    replay.height[0] = 0.0
    for k in range(1, count):
        side = int(log.branch[k])
        rule = branches[side]
        focus[side] += rule.predicted_focus_step(nominal[k])
        predicted = last_x[side], rule.y + rule.predicted_step(nominal[k])
        replay.error[k] = log.shift[k] - predicted
        branches[side] = rule.record(nominal[k], log.shift[k, 1])
        last_x[side] = log.shift[k, 0]
        replay.height[k] = branches[side].z0
        replay.focus[k] = focus[side]
    return replay


@in_double_precision
def replay_filter(log: TiltLog, n0: float = 0.0, prior: GeometryPrior | None = None) -> LogReplay:
    """Replay of the Kalman filter, with a target at `n0` across the axis.

    The running median of normalised innovations scales sigma, as the stage is not known before.
    """
    count = len(log.angle)
    exposures = Exposures.of(
        log.angle,
        (log.branch < 0).astype(int),
        np.full((1, count), SECONDS_PER_TILT),
        np.zeros(count),
        focus_sign=TEM,
    )
    belief = (prior or GeometryPrior()).belief(np.array([[0.0, n0, 0.0]]), exposures)
    shift = log.shift - log.shift[0] + np.array([0.0, n0])
    replay = _empty(count)
    innovations: list[np.ndarray] = []
    for k in range(count):
        scale = _scale(innovations)
        predicted = belief.predict(exposures, 0, k)
        start = belief.predict(exposures, 0, 0)
        measured = TargetMeasurement.of(
            0, k, -1, [*shift[k], 0.0], [RECORDED_SIGMA, RECORDED_SIGMA, np.inf]
        )
        belief, innovation = belief.observe(exposures, measured, LOSS * scale, HUBER * scale)
        replay.height[k] = -belief.mean.targets[0, 2]
        if k == 0:
            continue
        replay.error[k] = shift[k] - predicted.shift
        replay.sigma[k] = (scale * predicted.sigma)[:2]
        replay.focus[k] = predicted.focus - start.focus
        replay.lost[k] = innovation.lost
        if not innovation.lost:
            innovations.append(np.asarray(innovation.normalised))
    return replay


def _scale(innovations):
    """Ratio of spread to prediction of each number, from medians."""
    if len(innovations) < MIN_INNOVATIONS:
        return np.ones(3)
    spread = np.median(np.abs(innovations), 0) / NORMAL_MEDIAN
    return np.maximum(spread, MIN_SCALE)


def _empty(count):
    return LogReplay(
        np.full((count, 2), np.nan),
        np.full((count, 2), np.nan),
        np.full(count, np.nan),
        np.full(count, np.nan),
        np.zeros(count, bool),
    )
