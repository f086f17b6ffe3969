"""Nominal and true positions of the probe."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ..physics.types import Numbers

Places = Float[np.ndarray, "shot 2"]  # Å (y, x)


def raster(
    shape: tuple[int, int], step: float, rotation: float = 0.0, centre: Numbers = (0.0, 0.0)
) -> Places:
    """Positions (y, x) [Å] of a raster of `shape` points, rotated by `rotation` [rad] about its
    middle.
    """
    if min(shape) < 1 or not step > 0:
        raise ValueError(
            f"a raster of {shape[0]} × {shape[1]} points {step:g} Å apart; expected positive "
            "numbers"
        )
    y, x = (step * (np.arange(n) - (n - 1) / 2) for n in shape)
    c, s = np.cos(rotation), np.sin(rotation)
    points = np.stack(np.meshgrid(y, x, indexing="ij"), -1).reshape(-1, 2)
    return points @ np.array([[c, s], [-s, c]]) + np.asarray(centre)


@dataclass(frozen=True)
class ScanErrors:
    """Differences of the true positions from the nominal ones."""

    jitter: float = 0.0  # Å, rms in y and in x, independent for every shot
    drift: tuple[float, float] = (0.0, 0.0)  # Å (y, x), from the first shot to the last
    shear: float = 0.0  # x moves by this times y
    scale: tuple[float, float] = (1.0, 1.0)  # (y, x)

    def applied(self, nominal: Places, rng: np.random.Generator) -> Places:
        """The true positions (y, x) [Å]."""
        middle = nominal.mean(0)
        moved = (nominal - middle) * self.scale
        moved[:, 1] += self.shear * moved[:, 0]
        time = (
            np.linspace(0.0, 1.0, len(nominal))[:, None] if len(nominal) > 1 else np.zeros((1, 1))
        )
        return middle + moved + time * self.drift + self.jitter * rng.normal(size=nominal.shape)
