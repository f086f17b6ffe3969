"""Plan of a series: order of tilts and targets, and the time that it takes."""

from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Bool, Float

from .geometry import STEM, Exposures

OVERSHOOT = np.deg2rad(3.0)  # below an angle, from where every angle is approached
SECONDS_PER_RADIAN = 30.0  # of a stage, to as much


def dose_symmetric(
    start: float, lowest: float, highest: float, step: float, group: int = 2
) -> Float[np.ndarray, " tilt"]:
    """Tilts in the order of exposure, in the unit of the arguments.

    `group` tilts from the start upwards, as many downwards, and so on in turns (Hagen et al.,
    J. Struct. Biol. 197, 191 (2017)); then the rest of the side that is longer.
    """
    if not (lowest <= start <= highest and step > 0 and group > 0):
        raise ValueError(
            f"tilts from {lowest:g} to {highest:g} by {step:g} in groups of {group}, beginning at "
            f"{start:g}; lowest ≤ start ≤ highest, and a positive step and group are required"
        )
    up = [start + step * k for k in range(int((highest - start) / step + 1e-9) + 1)]
    down = [start - step * k for k in range(1, int((start - lowest) / step + 1e-9) + 1)]
    order: list[float] = []
    while up or down:
        for side in (up, down):
            order += side[:group]
            del side[:group]
    return np.array(order, float)


@dataclass(frozen=True)
class Plan:
    """Tilts [rad] in their order, and targets: (x, y) [Å], x along the tilt axis.

    The first target is tracked at every tilt, before the others are exposed. `seconds_per_target`
    is the nominal time of an exposure, `seconds_per_tilt` that of a tilt until the first of them.
    """

    angles: Float[np.ndarray, " tilt"]
    targets: Float[np.ndarray, "target 2"]
    seconds_per_tilt: float = 30.0
    seconds_per_target: float = 13.0
    focus_sign: int = STEM

    @property
    def branch(self) -> Bool[np.ndarray, " tilt"]:
        """True for the tilts below the first one."""
        return self.angles < self.angles[0]

    @property
    def order(self) -> list[int]:
        """Numbers of the targets as they are exposed: the tracked one, then by image shift."""
        distance = np.hypot(*(self.targets - self.targets[0]).T)
        return [int(i) for i in np.argsort(distance, kind="stable")]

    def exposures(self) -> Exposures:
        """Exposures as planned, for the belief."""
        rank = np.argsort(self.order)
        delay = self.seconds_per_tilt + self.seconds_per_target * rank
        count = len(self.angles)
        return Exposures.of(
            self.angles,
            self.branch.astype(int),
            np.repeat(delay[:, None], count, 1),
            np.arange(count, dtype=float),
            focus_sign=self.focus_sign,
        )

    def beyond(self, limit: float) -> list[int]:
        """Targets whose image shift at no tilt is beyond `limit` [Å]."""
        distance = np.hypot(*np.asarray(self.targets).T)
        return [int(i) for i in np.flatnonzero(distance > limit)]


def from_above(start: float, angle: float) -> bool:
    """True if a stage is first tilted to below an angle, from where every angle is approached."""
    return bool(start > angle - OVERSHOOT / 2)


def stage_moves(start: float, angle: float) -> tuple[int, float]:
    """Number of tilts from one angle to another, and their way [rad]."""
    if not from_above(start, angle):
        return 1, float(angle - start)
    return 2, float(abs(angle - OVERSHOOT - start) + OVERSHOOT)


@dataclass(frozen=True)
class Times:
    """Time of repeated work [s], `base` · count + `rate` · size: nominal, and as it was measured.

    The estimate is the posterior mean for nominal values of standard deviation `base_sigma` and
    `rate_sigma`, and a `noise` of each time.
    """

    base: float
    base_sigma: float
    noise: float
    rate: float = 0.0
    rate_sigma: float = 0.0
    done: tuple[tuple[int, float, float], ...] = field(default=())  # (count, size, seconds)

    def add(self, seconds: float, count: int = 1, size: float = 0.0) -> "Times":
        """Times after one more measurement."""
        return replace(self, done=(*self.done, (count, size, seconds)))

    def expected(self, count: int, size: float = 0.0) -> float:
        """Expected time of work of a total count and size [s]."""
        base, rate = self._fit()
        return float(base * count + rate * size)

    def _fit(self):
        """Linear regression with a Gaussian prior."""
        nominal = np.array([self.base, self.rate])
        sigma = np.array([self.base_sigma, self.rate_sigma])
        count, size, seconds = np.array(self.done, float).reshape(-1, 3).T
        rows = np.stack([count, size], -1) * sigma / self.noise
        misfit = (seconds - self.base * count - self.rate * size) / self.noise
        return nominal + sigma * np.linalg.solve(rows.T @ rows + np.eye(2), rows.T @ misfit)


@dataclass(frozen=True)
class Forecast:
    """Times of tilts, by the way of the stage, of tracking and of exposures."""

    tilts: Times
    tracking: Times
    exposures: Times

    @classmethod
    def of(cls, plan: Plan) -> "Forecast":
        """Forecast from the nominal times of a plan, which are known to half of them."""
        half = plan.seconds_per_tilt / 2
        return cls(
            Times(half / 2, half / 2, 0.3, SECONDS_PER_RADIAN, SECONDS_PER_RADIAN),
            Times(half, half, 4.0),
            Times(plan.seconds_per_target, plan.seconds_per_target / 2, 2.0),
        )

    def remaining(
        self, start: float, angles: Float[np.ndarray, " _"], tracked: int, exposures: int
    ) -> float:
        """Seconds of the tilts from `start` to all of `angles`, of tracking, and of exposures."""
        starts = np.append(start, angles[:-1])
        moves = [stage_moves(*pair) for pair in zip(starts, angles, strict=False)]
        count = sum(count for count, _ in moves)
        way = float(sum(way for _, way in moves))
        return (
            self.tilts.expected(count, way)
            + self.tracking.expected(tracked)
            + self.exposures.expected(exposures)
        )
