"""Patterns of which a part belongs to the next or the last one, as a late readout leaves them."""

import numpy as np
from jaxtyping import Bool, Float, Num

MIN_EQUAL = 32  # pixels with counts that are equal in two patterns: not by chance


def torn_pairs(
    patterns: Num[np.ndarray, "b y x"],
    rows: Float[np.ndarray, "b y"],
    columns: Float[np.ndarray, "b x"],
) -> Bool[np.ndarray, " b-1"]:
    """Pairs of successive patterns that are equal on one side of a line, and differ beyond it.

    Patterns have their zero frequency in the corner; `rows` and `columns` are their sums.
    """
    found = np.zeros(len(patterns) - 1, bool)
    for axis, sums in ((1, rows), (2, columns)):
        shown = np.fft.fftshift(sums, axes=1)
        for side in (shown, shown[:, ::-1]):
            for pair in np.flatnonzero(_equal_lines(side)):
                found[pair] |= _share(patterns[pair : pair + 2], axis, side is not shown)
    return found


def _equal_lines(sums: Float[np.ndarray, "b n"]) -> Bool[np.ndarray, " b-1"]:
    """Pairs whose first lines have equal sums, with enough counts, but not all lines."""
    equal = np.logical_and.accumulate(sums[1:] == sums[:-1], axis=1)
    counts = np.where(equal, sums[1:], 0).sum(1)
    return ~equal[:, -1] & (counts >= MIN_EQUAL)


def _share(pair: Num[np.ndarray, "2 y x"], axis: int, last: bool) -> bool:
    """True if the first lines of two patterns, or the last, are equal in pixels with counts."""
    first, second = np.fft.fftshift(pair, axes=(1, 2))
    if axis == 2:
        first, second = first.T, second.T
    if last:
        first, second = first[::-1], second[::-1]
    equal = np.logical_and.accumulate((first == second).all(1))
    return int((first[equal] > 0).sum()) >= MIN_EQUAL
