"""The rule by which the community predicts targets, as a peer of the filter.

Eisenstein et al., Nat. Methods 20, 131 (2023): from one tilt to the next of a branch a target moves
across the axis by Δy = n₀ Δcos θ − z₀ Δsin θ, with z₀ from least squares of its last four steps.
Nominal tilts, one target, no errors of measurement, no covariance. Here z₀ is upstream.
"""

from dataclasses import dataclass, replace

import numpy as np

STEPS = 4  # steps of a branch that z₀ is fitted to


@dataclass(frozen=True)
class CommunityRule:
    """State of the rule for one target on one branch: lengths in Å, angles in rad.

    `increment` is the nominal tilt from step to step (negative on the negative branch), `n0` the
    place across the axis relative to it, `z0` the fitted height, `y` the last place.
    """

    increment: float
    n0: float = 0.0
    z0: float = 0.0
    y: float = 0.0
    angles: tuple[float, ...] = ()
    steps: tuple[float, ...] = ()

    @classmethod
    def begin(cls, start: float, increment: float, n0: float = 0.0, y: float = 0.0):
        """State after the exposure at the `start` tilt.

        On the positive branch the predicted step to the start is the first to be fitted.
        """
        rule = cls(increment, n0, y=y)
        if increment < 0:
            return rule
        return replace(rule, angles=(start,), steps=(rule.predicted_step(start),))

    def predicted_step(self, angle: float) -> float:
        """Δy [Å] from the tilt before `angle`."""
        cos, sin = self._differences(angle)
        return self.n0 * cos - self.z0 * sin

    def predicted_focus_step(self, angle: float) -> float:
        """Δz [Å] upstream from the tilt before `angle`."""
        cos, sin = self._differences(angle)
        return self.n0 * sin + self.z0 * cos

    def record(self, angle: float, y: float) -> "CommunityRule":
        """State after the target was found at `y`, with z₀ of the last four steps.

        The first step of the negative branch counts as predicted, since it includes the way back.
        """
        way_back = self.increment < 0 and not self.angles
        step = self.predicted_step(angle) if way_back else y - self.y
        angles = (*self.angles, angle)[-STEPS:]
        steps = (*self.steps, step)[-STEPS:]
        cos, sin = self._differences(np.array(angles))
        z0 = -np.sum((np.array(steps) - self.n0 * cos) * sin) / np.sum(sin**2)
        return replace(self, z0=float(z0), y=y, angles=angles, steps=steps)

    def _differences(self, angle):
        before = angle - self.increment
        return np.cos(angle) - np.cos(before), np.sin(angle) - np.sin(before)
