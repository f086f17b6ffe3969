"""Patterns that are off by one against the positions: a frame that was lost, or one too many.

The centres of mass of successive patterns change most where a scan returns to the start of a line.
In a scan that goes back and forth those of a line are most like those of the next one at the same
place. Patterns that are ahead by a shot move the return by a shot, and the next line by two steps
to either side in turn. Steps must be so fine that neighbouring patterns are alike, which those in
the middle of the lines show: a particle in vacuum changes the patterns at its edges and within.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ..data import Dataset

FEWEST_LINES = 5
FEWEST_SHOTS = 8  # of a line
RETURN = 3.0  # steps, from which on a scan returns
REACH = 2  # shots by which patterns may be ahead or behind
LINES = 16  # that are compared with the next
RETURNS = 64  # that are looked at
WIDTH = 24  # shots of a line that are compared with the next
SIGNIFICANT = 5.0  # standard errors


class Shift(NamedTuple):
    """Shots by which later patterns are ahead of their positions, and the first known of them."""

    ahead: int
    shot: int


def shifted_frames(data: Dataset, view: int = 0) -> Shift | None:
    """Shift of patterns against the positions of a scan in lines; None where none is seen."""
    steps = np.diff(data.positions[view], axis=0)
    if len(steps) < FEWEST_LINES * FEWEST_SHOTS:
        return None
    lengths = np.hypot(*steps.T)
    usual = float(np.median(lengths))
    returns = np.flatnonzero(lengths > RETURN * usual)
    if _are_lines(returns):
        return _by_returns(data, view, returns)
    fast = int(np.argmax(np.median(np.abs(steps), axis=0)))
    forth = np.sign(np.where(np.abs(steps[:, fast]) > usual / 2, steps[:, fast], 0)).astype(int)
    turns = np.flatnonzero(np.diff(forth, prepend=0) != 0)
    turns = turns[forth[turns] == 0]
    if usual > 0 and _are_lines(turns):
        return _by_lines(data, view, turns, forth)
    return None


def _are_lines(ends: Int[np.ndarray, " n"]) -> bool:
    """True for last shots of enough lines of enough shots."""
    return len(ends) >= FEWEST_LINES and bool(np.median(np.diff(ends)) >= FEWEST_SHOTS)


def _by_returns(data: Dataset, view: int, returns: Int[np.ndarray, " n"]) -> Shift | None:
    """From the changes at and around the returns to the next line."""
    around = np.arange(-REACH, REACH + 1)
    chosen = _spread(
        returns[(returns >= REACH) & (returns + REACH + 1 < data.n_shots[view])], RETURNS
    )
    half = int(np.median(np.diff(returns))) // 2
    changes = []
    within = []
    for last in chosen:
        centres = _centres(data, view, last + np.append(around, REACH + 1))
        changes.append(np.sum(np.diff(centres, axis=0) ** 2, axis=1))
        middle = _centres(data, view, np.maximum(last - half, REACH) + around)
        within.append(np.max(np.sum(np.diff(middle, axis=0) ** 2, axis=1)))
    found = _exceeding(np.array(changes), np.array(within))
    return None if found is None else Shift(int(-around[found[0]]), int(chosen[found[1]]))


def _by_lines(
    data: Dataset, view: int, turns: Int[np.ndarray, " n"], forth: Int[np.ndarray, " shot"]
) -> Shift | None:
    """From neighbouring lines of a scan that goes back and forth."""
    around = 2 * np.arange(-REACH, REACH + 1)  # steps, by two for every shot
    length = int(np.median(np.diff(turns)))
    width = min(length, WIDTH)
    alike = []
    chosen = []
    for turn in _spread(turns, LINES):
        far = (length - width) // 2
        before = turn - far - np.arange(width)
        after = turn + 1 + far + np.arange(width)
        if before.min() < 0 or after.max() >= data.n_shots[view] or forth[turn - 1] == 0:
            continue
        line, following = _centres(data, view, before), _centres(data, view, after)
        alike.append([1 / _difference(line, following, lag) for lag in around.tolist()])
        chosen.append(int(turn))
    found = _exceeding(np.array(alike), np.zeros(len(alike)))
    return None if found is None else Shift(int(-around[found[0]] // 2), chosen[found[1]])


def _difference(first: Float[np.ndarray, "n 2"], second: Float[np.ndarray, "n 2"], lag: int):
    """Mean square of the difference of centres, the second ones `lag` farther."""
    count = len(first) - abs(lag)
    start = max(lag, 0)
    apart = first[start - lag : start - lag + count] - second[start : start + count]
    return max(float(np.mean(apart**2)), 1e-30)


def _exceeding(
    values: Float[np.ndarray, "line place"], usual: Float[np.ndarray, " line"]
) -> tuple[int, int] | None:
    """Place whose values exceed those of the middle, and from which line on; None without one.

    They exceed those of the place opposite as well, unlike those of a lattice of few steps, and the
    `usual` ones elsewhere in a line.
    """
    if len(values) < FEWEST_LINES:
        return None
    values = np.sqrt(values)
    usual = np.sqrt(usual)
    middle = values.shape[1] // 2
    found = None
    highest = SIGNIFICANT
    for place in (p for p in range(values.shape[1]) if p != middle):
        others = np.delete(values, [middle, place], axis=1)
        spread = max(float((others - others.mean(1, keepdims=True)).std()), 1e-30)
        rivals = np.max([values[:, middle], values[:, -1 - place], usual], axis=0)
        excess = (values[:, place] - rivals) / spread
        for first in range(len(values) - FEWEST_LINES + 1):
            score = excess[first:].mean() * np.sqrt((len(values) - first) / 2)
            if score > highest:
                found = place, first
                highest = score
    return found


def _spread(lines: Int[np.ndarray, " n"], count: int) -> Int[np.ndarray, " m"]:
    """At most `count` of the lines."""
    if len(lines) <= count:
        return lines
    return lines[np.linspace(0, len(lines) - 1, count).astype(int)]


def _centres(data: Dataset, view: int, shots: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n 2"]:
    """Centres of mass (y, x) of patterns [pixels]."""
    patterns = np.fft.fftshift(data.patterns(view, shots), axes=(1, 2))
    along_y, along_x = (patterns.sum(axis, dtype=float) for axis in (2, 1))
    ny, nx = patterns.shape[1:]
    dose = np.maximum(along_y.sum(1), 1)
    return np.stack([along_y @ np.arange(ny) / dose, along_x @ np.arange(nx) / dose], 1)
