"""Simulated stage: where it brings a point of the specimen, which is never where it should be.

Lab frame: x along the tilt axis, y across, z along the beam, downstream. Lengths in Å, angles in
rad, times in s. Every tilt and every move draws its errors from the stage's random numbers alone,
so a stage of one seed makes the same errors under every controller that tilts alike.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

HARMONICS = np.arange(1, 7)


@dataclass(frozen=True)
class StageErrors:
    """Sizes of the errors: standard deviations, unless said otherwise.

    `runout` of the first harmonic of the angle, the k-th has 1/k of it; `jitter` of every tilt,
    Student's t of `degrees_of_freedom` scaled to this deviation, `vertical` of it along the beam;
    `backlash`, `backlash_angle` and `axis_offset` (y, z) by the direction of approach, of the
    backlash `relaxing` the fraction that relaxes after a tilt; `drift` [Å/s] right after a tilt,
    decaying with `settling` [s]; `angle` and `reading` of the angle; `move` of every movement.
    """

    runout: float = 3000.0
    jitter: float = 1500.0
    vertical: float = 0.3
    degrees_of_freedom: float = np.inf
    backlash: float = 2000.0
    backlash_angle: float = 0.0
    relaxing: float = 0.0
    axis_offset: float = 3000.0
    drift: float = 100.0 / 60
    settling: float = 30.0
    angle: float = np.deg2rad(0.02)
    reading: float = np.deg2rad(0.003)
    move: float = 50.0


@dataclass(frozen=True)
class StagePose:
    """The specimen `moved` in its plane and height, rotated by `angle` about x through `centre`,

    and translated by the errors of the stage.
    """

    angle: float
    moved: Float[np.ndarray, "3"]
    centre: Float[np.ndarray, "3"]
    translation: Float[np.ndarray, "3"]

    def place(self, point: Float[np.ndarray, "*s 3"]) -> Float[np.ndarray, "*s 3"]:
        """Place in the lab of points of the specimen (x, y, z)."""
        cos = np.cos(self.angle)
        sin = np.sin(self.angle)
        rotation = np.array([[1, 0, 0], [0, cos, sin], [0, -sin, cos]])
        return (point + self.moved - self.centre) @ rotation.T + self.centre + self.translation


class Stage:
    """Stage with the errors of one seed, at angle 0 at first."""

    def __init__(self, errors: StageErrors, seed: int):
        self.errors = errors
        self._rng = rng = np.random.default_rng([seed, 1])
        self._phases = rng.uniform(0, 2 * np.pi, (3, len(HARMONICS)))
        self._sizes = rng.normal(0, errors.runout, (3, len(HARMONICS))) / HARMONICS
        self._axis = np.pad(rng.normal(0, errors.axis_offset, (2, 2)), ((0, 0), (1, 0)))
        self._backlash = rng.normal(0, errors.backlash, (2, 3))
        self._backlash_angle = rng.normal(0, errors.backlash_angle, 2)
        self.commanded = 0.0
        self.moved = np.zeros(3)
        self._upwards = True
        self._arrive(0.0)

    def tilt(self, angle: float, time: float) -> None:
        """Arrive at an angle at a time."""
        self._upwards = angle >= self.commanded
        self.commanded = angle
        self._arrive(time)

    def move(self, distance: Float[np.ndarray, "3"]) -> None:
        """Move the specimen by a distance in its own frame, which tilts with the stage."""
        self.moved = self.moved + distance + self._rng.normal(0, self.errors.move, 3)

    def pose(self, time: float) -> StagePose:
        """Pose at a time after the arrival."""
        side = int(not self._upwards)
        since = max(time - self._arrival, 0.0)
        gone = 1 - np.exp(-since / self.errors.settling)
        drifted = self._speed * self.errors.settling * gone
        backlash = self._backlash[side] * (1 - self.errors.relaxing * gone)
        waves = np.sin(self._angle * HARMONICS + self._phases)
        runout = np.sum(self._sizes * waves, -1)
        translation = runout + self._jitter + backlash + drifted
        return StagePose(self._angle, self.moved, self._axis[side], translation)

    def _arrive(self, time):
        errors = self.errors
        rng = self._rng
        angle = rng.normal(0, errors.angle) + self._backlash_angle[int(not self._upwards)]
        self._angle = self.commanded + angle
        self.reading = self._angle + rng.normal(0, errors.reading)
        self._jitter = self._heavy_tails(3) * errors.jitter * np.array([1, 1, errors.vertical])
        self._speed = rng.normal(0, errors.drift, 3)
        self._arrival = time

    def _heavy_tails(self, size):
        """Student's t scaled to a standard deviation of 1."""
        freedom = self.errors.degrees_of_freedom
        if np.isinf(freedom):
            return self._rng.normal(size=size)
        return self._rng.standard_t(freedom, size) * np.sqrt(1 - 2 / freedom)
