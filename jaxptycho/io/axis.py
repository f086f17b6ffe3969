"""Measurements whose tilt axis has another direction in the patterns than y, turned by quarter turns."""

from typing import Any

import numpy as np
from jaxtyping import Float, Num, Shaped

from .instrument import PAIRS

QUARTER = np.array(
    [[0, 1], [-1, 0]]
)  # on (y, x): what was along x is along y, what was along y is along −x


def quarter_turns(axis_deg: float) -> int:
    """Quarter turns that bring a tilt axis at `axis_deg` from y towards x nearest to y, from 0 to 3."""
    return round(axis_deg / 90) % 4


def remainder(axis_deg: float) -> float:
    """Direction of the axis after the quarter turns [degrees], within ±45."""
    return axis_deg - 90 * round(axis_deg / 90)


def turned_images(images: Shaped[np.ndarray, "*n y x"], turns: int) -> Shaped[np.ndarray, "*n _ _"]:
    """Images after so many quarter turns from x to y about their middle pixels [n//2, n//2], exactly.

    The first row of an even number, which has no opposite one, stays: it is the Nyquist frequency of both signs.
    """
    for _ in range(turns):
        opposite = -np.arange(images.shape[-2]) + 2 * (images.shape[-2] // 2)
        images = np.take(images, opposite % images.shape[-2], axis=-2).swapaxes(-1, -2)
    return images


def turned_positions(positions: Float[np.ndarray, "*n 2"], turns: int) -> Float[np.ndarray, "*n 2"]:
    """Positions (y, x) in the frame of the turned patterns."""
    return positions @ np.linalg.matrix_power(QUARTER, turns).T


def turned_about(about: dict[str, Any], turns: int) -> dict[str, Any]:
    """What is known of the instrument in the frame of the turned patterns: pairs (y, x) exchanged where it must be, and
    the direction of the axis that is left."""
    pairs = {
        name: tuple(about[name])[::-1]
        for name in PAIRS
        if turns % 2 and np.ndim(about.get(name, 0))
    }
    left = remainder(float(about["tilt_axis_deg"]))
    others = {name: value for name, value in about.items() if name != "tilt_axis_deg"}
    return others | pairs | ({"tilt_axis_deg": left} if left else {})


class TurnedCounts:
    """Patterns [shot, y, x] of one or several views, turned when they are read."""

    def __init__(self, counts: Any, turns: int):
        *others, y, x = counts.shape
        self.counts, self.turns, self.dtype = counts, turns, counts.dtype
        self.shape = (*others, x, y) if turns % 2 else (*others, y, x)

    def __getitem__(self, index) -> Num[np.ndarray, "*n y x"]:
        return turned_images(np.asarray(self.counts[index]), self.turns)
