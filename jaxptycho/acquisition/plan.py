"""Plan of a series: order of tilts and targets, and the time that it takes."""

from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Bool, Float

from .geometry import STEM, Exposures

SPREAD = 0.5  # of a nominal time, as a fraction: its standard deviation before any was measured


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


@dataclass(frozen=True)
class Times:
    """Time of repeated work, linear in `size`: its prior and what was measured.

    `base` [s] and `rate` [s per unit of size] are nominal; the estimate is their posterior mean
    under a noise of `noise` [s].
    """

    base: float
    rate: float = 0.0
    noise: float = 1.0
    done: tuple[tuple[float, float], ...] = field(default=())  # (size, seconds)

    def add(self, seconds: float, size: float = 0.0) -> "Times":
        """Times after one more measurement."""
        return replace(self, done=(*self.done, (size, seconds)))

    def expected(self, sizes: Float[np.ndarray, " _"]) -> float:
        """Sum of the expected times of work of these sizes [s]."""
        base, rate = self._fit()
        return float(base * sizes.size + rate * sizes.sum())

    def _fit(self):
        nominal = np.array([self.base, self.rate])
        size, seconds = np.array(self.done, float).reshape(-1, 2).T
        rows = np.stack([np.ones_like(size), size], -1)
        precision = np.diag(1 / np.maximum(SPREAD * nominal, 1e-6) ** 2)
        normal = rows.T @ rows / self.noise**2 + precision
        return nominal + np.linalg.solve(
            normal, rows.T @ (seconds - rows @ nominal) / self.noise**2
        )


@dataclass(frozen=True)
class Forecast:
    """Times of tilts, by the angle [rad] from the one before, and of exposures."""

    tilts: Times
    exposures: Times

    @classmethod
    def of(cls, plan: Plan, seconds_per_radian: float = 10.0) -> "Forecast":
        """Forecast from the nominal times of a plan."""
        tilt = Times(plan.seconds_per_tilt, seconds_per_radian)
        return cls(tilt, Times(plan.seconds_per_target))

    def remaining(self, angles: Float[np.ndarray, " _"], exposures: int) -> float:
        """Seconds that tilts take from the first of `angles` on to the others, with exposures."""
        apart = np.abs(np.diff(angles))
        return self.tilts.expected(apart) + self.exposures.expected(np.zeros(exposures))
