"""A simulated stage with targets, for `bench_acquisition`: NumPy alone, shares no code with the filter.

Eucentric runout of six harmonics, jitter, backlash by branch, two axis offsets, drift after each tilt, tilt readings with
scatter, heights on a tilted plane with roughness, an image-shift matrix that is not quite known. Lengths in nm, tilts in degrees.
"""

from dataclasses import dataclass

import numpy as np

SETTLING_S = 30.0
SECONDS_PER_TARGET = 12.0
VERTICAL = 0.3  # jitter of the stage along the beam, of that across it


@dataclass(frozen=True)
class World:
    """Sizes of the errors; standard deviations [nm, degrees] unless said otherwise."""

    jitter: float
    pair_noise: float
    roughness: float
    reading: float
    runout: float = 300.0
    height: float = 1000.0
    slope: float = 0.05
    axis_offset: float = 300.0
    backlash: float = 200.0
    drift_per_minute: float = 10.0
    matrix: float = 0.0
    student_t: bool = False
    mislocks: float = 0.0  # fraction of shifts that are off by a period of a lattice
    period: float = 100.0


GENTLE = World(150.0, 2.0, 100.0, 0.003)
HARSH = World(500.0, 10.0, 300.0, 0.05)


def dose_symmetric(end: float = 60.0, step: float = 3.0) -> np.ndarray:
    """Tilts 0, +, −, −, +, + … to ±`end` in groups of two."""
    plus = list(np.arange(step, end + step / 2, step))
    minus = [-tilt for tilt in plus]
    order = [0.0, plus.pop(0)]
    while plus or minus:
        for side in (minus, plus):
            order += side[:2]
            del side[:2]
    return np.array(order)


class Series:
    """One stage and its targets, of a seed: `places[target, tilt]` (x, y, z) as exposures see them."""

    def __init__(self, world: World, seed: int, targets: int = 9):
        self.world = world
        self.rng = rng = np.random.default_rng(seed)
        self.tilts = dose_symmetric()
        count = len(self.tilts)
        true = np.deg2rad(self.tilts + rng.normal(0, 0.02, count))
        self.readings = np.rad2deg(true) + rng.normal(0, world.reading, count)
        self.branch = (self.tilts < 0).astype(int)
        self.delay = 15.0 + SECONDS_PER_TARGET * np.arange(targets)
        targets_xy = _spread(rng, targets)
        x, y = targets_xy.T
        z = rng.normal(0, world.height) + targets_xy @ rng.normal(0, world.slope, 2)
        z = z + rng.normal(0, world.roughness, targets)
        axis = rng.normal(0, world.axis_offset, (2, 2))[self.branch]
        y = y[:, None] - axis[:, 0]
        z = z[:, None] - axis[:, 1]
        place = np.stack(
            [
                np.broadcast_to(x[:, None], y.shape),
                y * np.cos(true) + z * np.sin(true) + axis[:, 0],
                z * np.cos(true) - y * np.sin(true) + axis[:, 1],
            ],
            -1,
        )
        place = place + self._stage(true) + self._drift(targets)
        error = np.eye(2) + rng.normal(0, world.matrix, (2, 2))
        self.nominal = targets_xy
        place[..., :2] = place[..., :2] @ error.T
        self.places = place

    def pair(self, target: int, tilt: int, other: int) -> tuple[np.ndarray, float]:
        """Measured shift (x, y) between two images of a target, and the deviation of its noise."""
        apart = self.tilts[tilt] - self.tilts[other]
        sigma = self.world.pair_noise * np.sqrt(1 + (apart / 6) ** 2)
        true = self.places[target, tilt, :2] - self.places[target, other, :2]
        shift = true + self.rng.normal(0, sigma, 2)
        if self.rng.random() < self.world.mislocks:
            angle = self.rng.integers(6) * np.pi / 3
            shift = shift + self.world.period * np.array([np.cos(angle), np.sin(angle)])
        return shift, sigma

    def height(self, target: int, tilt: int, sigma: float) -> float:
        """Measured height along the beam."""
        return self.places[target, tilt, 2] + self.rng.normal(0, sigma)

    def _stage(self, true):
        rng = self.rng
        harmonics = np.arange(1, 7)
        phases = rng.uniform(0, 2 * np.pi, (3, 6))
        sizes = rng.normal(0, self.world.runout, (3, 6)) / harmonics
        runout = np.einsum("ch,kch->kc", sizes, np.sin(true[:, None, None] * harmonics + phases))
        size = (len(true), 3)
        random = (
            rng.standard_t(3, size) / np.sqrt(3) if self.world.student_t else rng.normal(size=size)
        )
        jitter = random * self.world.jitter * np.array([1, 1, VERTICAL])
        return runout + jitter + rng.normal(0, self.world.backlash, (2, 3))[self.branch]

    def _drift(self, targets):
        speed = self.rng.normal(0, self.world.drift_per_minute / 60, (len(self.tilts), 3))
        return speed * (SETTLING_S * (1 - np.exp(-self.delay / SETTLING_S)))[:, None, None]


def _spread(rng, count, reach=8000.0, apart=3000.0):
    """Targets at least `apart` from each other; the first, which is tracked, in the middle."""
    found = [np.zeros(2)]
    while len(found) < count:
        place = rng.uniform(-reach, reach, 2)
        if min(np.hypot(*(place - other)) for other in found) >= apart:
            found.append(place)
    return np.array(found)
