"""Simulated specimen: a rough, tilted film that moves with dose, with bars of a grid beside it."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

WAVES = 200
CELL = 1000.0  # Å, of the grid in which particles are drawn


@dataclass(frozen=True)
class SpecimenShape:
    """Sizes [Å, rad]: `height` of the film off the tilt axis and its `slope`, standard deviations.

    `roughness` over `length`, on top of the plane. `motion` [Å per unit of dose] is that of the
    middle of the film, (1 − r²/R²) of it elsewhere with R = `radius`. Images are dark at angles
    outside `clear`. Images lose the fraction `contamination` of their contrast at every exposure.
    Particles per square micrometre within `thickness`, `period` > 0 for a square lattice of them.
    """

    height: float = 10_000.0
    slope: float = 0.05
    roughness: float = 1000.0
    length: float = 5000.0
    motion: float = 0.0
    radius: float = 100_000.0
    clear: tuple[float, float] = (-np.pi / 2, np.pi / 2)
    contamination: float = 0.0
    particles: float = 3000.0
    thickness: float = 300.0
    period: float = 0.0


class SimulatedSpecimen:
    """Specimen of one seed."""

    def __init__(self, shape: SpecimenShape, seed: int):
        self.shape = shape
        self._seed = seed
        rng = np.random.default_rng([seed, 2])
        self._height = rng.normal(0, shape.height)
        self._slope = rng.normal(0, shape.slope, 2)
        self._waves = rng.normal(0, 1 / shape.length, (WAVES, 2))
        self._phases = rng.uniform(0, 2 * np.pi, WAVES)
        self._direction = rng.normal(0, 1, 3)
        self._doses: list[tuple[Float[np.ndarray, 2], float]] = []

    def surface(self, places: Float[np.ndarray, "*s 2"]) -> Float[np.ndarray, "*s 3"]:
        """Points (x, y, z) of the film at (x, y): plane, and Gaussian process of random waves."""
        waves = np.cos(places @ self._waves.T + self._phases).sum(-1)
        rough = self.shape.roughness * np.sqrt(2 / WAVES) * waves
        height = self._height + places @ self._slope + rough
        return np.concatenate([places, height[..., None]], -1)

    def expose(self, place: Float[np.ndarray, "2"], dose: float) -> None:
        """Give a dose to the surroundings of a place (x, y)."""
        self._doses.append((place, dose))

    def dose(self, place: Float[np.ndarray, "2"], reach: float = 500.0) -> float:
        """Dose that a place has had."""
        return sum(d for p, d in self._doses if np.hypot(*(p - place)) < reach)

    def motion(self, place: Float[np.ndarray, "2"]) -> Float[np.ndarray, "3"]:
        """Displacement of a place by its dose, in the lab."""
        if not self.shape.motion:
            return np.zeros(3)
        profile = 1 - (place @ place) / self.shape.radius**2
        return self.shape.motion * self._direction * profile * self.dose(place)

    def particles(
        self, place: Float[np.ndarray, "2"], reach: float
    ) -> tuple[Float[np.ndarray, "particle 3"], Float[np.ndarray, " particle"]]:
        """Particles within `reach` of a place in x and y: points (x, y, z) and strengths."""
        first = np.floor((place - reach) / CELL).astype(int)
        last = np.floor((place + reach) / CELL).astype(int)
        cells = [
            self._cell(i, j)
            for i in range(first[0], last[0] + 1)
            for j in range(first[1], last[1] + 1)
        ]
        points = np.concatenate([points for points, _ in cells])
        points = np.concatenate(
            [points[:, :2], self.surface(points[:, :2])[:, 2:] + points[:, 2:]], 1
        )
        return points, np.concatenate([strength for _, strength in cells])

    def _cell(self, i, j):
        rng = np.random.default_rng([self._seed, 3, i + 2**20, j + 2**20])
        if self.shape.period:
            steps = np.arange(0, CELL - 1e-6, self.shape.period)
            places = np.stack(np.meshgrid(steps, steps), -1).reshape(-1, 2)
            points = np.pad(places, ((0, 0), (0, 1)))
            return points + np.array([i * CELL, j * CELL, 0.0]), np.ones(len(points))
        count = rng.poisson(self.shape.particles * (CELL / 1e4) ** 2)
        points = rng.uniform(0, 1, (count, 3)) * [CELL, CELL, self.shape.thickness]
        return points + np.array([i * CELL, j * CELL, 0.0]), rng.uniform(0.5, 1.5, count)
