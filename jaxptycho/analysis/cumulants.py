"""Cumulants of the counts of pixels with those around them, of a sample of patterns."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

REACH = 3  # half width of the largest square [pixels]
MOMENT_REACH = 2  # of the square that the spread is measured in
FEWEST_SHOTS = 6  # in a part
FEWEST_PARTS = 4


class Cumulants(NamedTuple):
    """Sums over the shots of each part of a sample, for pixels `REACH` away from the edges."""

    shots: Int[np.ndarray, " part"]
    first: Float[np.ndarray, "part y x"]
    second: Float[np.ndarray, "reach part y x"]  # δx δX in squares of half width 0 … REACH
    third: Float[np.ndarray, "reach part y x"]
    moment: Float[np.ndarray, "part y x"]  # δx Σ δx' (Δy² + Δx²)/2


def cumulants(
    patterns: Float[np.ndarray, "shot y x"], part: Int[np.ndarray, " shot"]
) -> Cumulants | None:
    """Cumulants of counts about the mean of their part, of neighbouring shots; None for too few."""
    sums = []
    for number in np.unique(part):
        block = patterns[part == number]
        n = len(block)
        if n < FEWEST_SHOTS:
            continue
        deviation = block - block.mean(0)
        middle = deviation[:, REACH:-REACH, REACH:-REACH]
        squares = [_square(deviation, reach) for reach in range(REACH + 1)]
        second = [np.einsum("syx,syx->yx", middle, around) for around in squares]
        third = [np.einsum("syx,syx,syx->yx", middle, around, around) for around in squares]
        moment = np.einsum("syx,syx->yx", middle, _second_moment(deviation))
        unbiased = n / (n - 1)
        first = block[:, REACH:-REACH, REACH:-REACH].sum(0)
        third = np.array(third) * unbiased * n / (n - 2)
        sums.append((n, first, np.array(second) * unbiased, third, moment * unbiased))
    if len(sums) < FEWEST_PARTS:
        return None
    n, first, second, third, moment = zip(*sums, strict=True)
    stacked = np.stack(first), np.stack(second, 1), np.stack(third, 1), np.stack(moment)
    return Cumulants(np.array(n), *(v.astype(float) for v in stacked))


def _square(values: Float[np.ndarray, "shot y x"], half: int) -> Float[np.ndarray, "shot v u"]:
    """Sum over the square of half width `half` around every pixel away from the edges."""
    return _weighted(_weighted(values, 1, np.ones(half + 1)), 2, np.ones(half + 1))


def _second_moment(values: Float[np.ndarray, "shot y x"]) -> Float[np.ndarray, "shot v u"]:
    """Sum over the square around every pixel, weighted with (Δy² + Δx²)/2."""
    ones = np.ones(MOMENT_REACH + 1)
    squares = np.arange(MOMENT_REACH + 1) ** 2 / 2
    along_y = _weighted(_weighted(values, 1, squares), 2, ones)
    return along_y + _weighted(_weighted(values, 1, ones), 2, squares)


def _weighted(values: np.ndarray, axis: int, weights: np.ndarray) -> np.ndarray:
    """Sum of pixels up to len(weights) − 1 away along an axis, by distance; edges cut off."""
    size = values.shape[axis] - 2 * REACH
    cut = [slice(None)] * 3
    total = 0
    for distance, weight in enumerate(weights):
        for step in {distance, -distance} if weight else ():
            cut[axis] = slice(REACH + step, REACH + step + size)
            total = total + (values[tuple(cut)] if weight == 1 else weight * values[tuple(cut)])
    return np.asarray(total, values.dtype)
