"""Simulated specimen: a rough, tilted film that moves with dose, with bars of a grid beside it."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

WAVES = 200


@dataclass(frozen=True)
class SpecimenShape:
    """Sizes [Å, rad]: `height` of the film off the tilt axis and its `slope`, standard deviations.

    `roughness` over `length`, on top of the plane. `motion` [Å per unit of dose] is that of the
    middle of the film, (1 − r²/R²) of it elsewhere with R = `radius`. Images are dark at angles
    outside `clear`.
    """

    height: float = 10_000.0
    slope: float = 0.05
    roughness: float = 1000.0
    length: float = 5000.0
    motion: float = 0.0
    radius: float = 100_000.0
    clear: tuple[float, float] = (-np.pi / 2, np.pi / 2)


class SimulatedSpecimen:
    """Specimen of one seed."""

    def __init__(self, shape: SpecimenShape, seed: int):
        self.shape = shape
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
