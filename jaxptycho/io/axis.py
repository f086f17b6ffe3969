"""Rotation of measurements by quarter turns, until their tilt axis is near y in the patterns."""

from typing import Any

import numpy as np
from jaxtyping import Float, Num, Shaped

from .instrument import PAIRS

QUARTER = np.array([[0, 1], [-1, 0]])  # on (y, x): from x to y, and from y to −x


def quarter_turns(axis_deg: float) -> int:
    """Quarter turns, 0 to 3, that bring a tilt axis at `axis_deg` from y towards x nearest to y."""
    return round(axis_deg / 90) % 4


def remaining_angle(axis_deg: float) -> float:
    """Direction of the axis after the quarter turns [degrees], within ±45."""
    return axis_deg - 90 * round(axis_deg / 90)


def rotate_patterns(
    images: Shaped[np.ndarray, "*n y x"], turns: int
) -> Shaped[np.ndarray, "*n _ _"]:
    """Images after `turns` quarter turns from x to y about their middle pixels [n//2, n//2].

    The rotation is exact. The first row of an even number, which has no opposite one, is kept: it
    is the Nyquist frequency of both signs.
    """
    for _ in range(turns):
        opposite = -np.arange(images.shape[-2]) + 2 * (images.shape[-2] // 2)
        images = np.take(images, opposite % images.shape[-2], axis=-2).swapaxes(-1, -2)
    return images


def rotate_positions(positions: Float[np.ndarray, "*n 2"], turns: int) -> Float[np.ndarray, "*n 2"]:
    """Positions (y, x) in the frame of the rotated patterns."""
    return positions @ np.linalg.matrix_power(QUARTER, turns).T


def rotate_properties(about: dict[str, Any], turns: int) -> dict[str, Any]:
    """Properties of the instrument in the frame of the rotated patterns.

    Pairs (y, x) are exchanged where necessary; the direction of the axis is the remaining one.
    """
    pairs = {
        name: tuple(about[name])[::-1]
        for name in PAIRS
        if turns % 2 and np.ndim(about.get(name, 0))
    }
    left = remaining_angle(float(about["tilt_axis_deg"]))
    others = {name: value for name, value in about.items() if name != "tilt_axis_deg"}
    return others | pairs | ({"tilt_axis_deg": left} if left else {})


class RotatedCounts:
    """Patterns [shot, y, x] of one or several views, rotated when they are read."""

    def __init__(self, counts: Any, turns: int):
        *others, y, x = counts.shape
        self.counts = counts
        self.turns = turns
        self.dtype = counts.dtype
        self.shape = (*others, x, y) if turns % 2 else (*others, y, x)

    def __getitem__(self, index) -> Num[np.ndarray, "*n y x"]:
        return rotate_patterns(np.asarray(self.counts[index]), self.turns)
