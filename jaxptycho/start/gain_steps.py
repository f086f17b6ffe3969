"""Chips of a camera whose gain is another one: the mean pattern has a step at their straight edge.

Along the edge of a chip the counts change by one factor, in the bright-field disc and beside it.
Features of a pattern have straight edges along neither axis, or not over half of the detector.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

MIN_ELECTRONS = 50.0  # of a pixel in all patterns
FEWEST = 12  # pixels along half of an edge
LEAST_STEP = 0.05  # relative
DEVIATIONS = 6.0  # standard errors of a step
OTHERS = 4.0  # times the largest step elsewhere
MOST = 0.7  # of the pixels along an edge have about the same step
UNLIKE = 0.3  # of a step, by which lines beside it are not smooth
MARGIN = 4  # pixels from the border of the detector


class GainStep(NamedTuple):
    """Region of a camera, and its gain relative to what is beside it."""

    rows: tuple[int, int]  # first, last
    columns: tuple[int, int]
    gain: float


class _Edge(NamedTuple):
    """Step of the logarithm at a `line`, in the first and the second half of its length."""

    line: int  # first one beyond the step
    first: float  # 0 without a step
    second: float

    @property
    def step(self) -> float:
        """The larger of the two."""
        return max(self.first, self.second, key=abs)

    @property
    def halves(self) -> tuple[bool, bool]:
        """Halves that have the step."""
        return self.first != 0, self.second != 0


def gain_step(
    electrons: Float[np.ndarray, "y x"], mask: Bool[np.ndarray, "y x"]
) -> GainStep | None:
    """Region of another gain, from the `electrons` of all patterns; None without one.

    A quadrant has half an edge along both axes, a half of the detector an edge along one.
    """
    known = mask & (electrons >= MIN_ELECTRONS)
    logarithm = np.where(known, np.log(np.maximum(electrons, 1)), np.nan)
    of_columns, of_rows = _edge(logarithm.T), _edge(logarithm)
    if not _is_chip(of_columns, of_rows):
        return None
    rows = _side(of_rows, of_columns, len(electrons))
    columns = _side(of_columns, of_rows, electrons.shape[1])
    step = _into(of_rows, rows) if of_columns is None else _into(of_columns, columns)
    return GainStep(rows, columns, float(np.exp(step)))


def _into(edge: _Edge | None, lines: tuple[int, int]) -> float:
    """Step from beside the region into its lines."""
    assert edge is not None  # one of them is an edge
    return edge.step if lines[0] == edge.line else -edge.step


def _is_chip(of_columns: _Edge | None, of_rows: _Edge | None) -> bool:
    """True for one edge along all of the detector, or two along a half with about the same step."""
    edges = [edge for edge in (of_columns, of_rows) if edge is not None]
    if len(edges) == 1:
        (edge,) = edges
        return all(edge.halves) and abs(edge.first - edge.second) < UNLIKE * abs(edge.step)
    sizes = [abs(edge.step) for edge in edges]
    return len(edges) == 2 and max(sizes) - min(sizes) < UNLIKE * max(sizes)


def _side(edge: _Edge | None, other: _Edge | None, count: int) -> tuple[int, int]:
    """First and last line of the region: the side of its `edge` on which the `other` one is."""
    halves = (False, True) if other is None else other.halves
    if edge is None:
        middle = count // 2
        return (0 if halves[0] else middle, count - 1 if halves[1] else middle - 1)
    return (edge.line, count - 1) if halves[1] else (0, edge.line - 1)


def _edge(logarithm: Float[np.ndarray, "n m"]) -> _Edge | None:
    """The edge between two lines n, None without one."""
    count = logarithm.shape[0]
    if count < 4 * MARGIN:
        return None
    slopes = np.diff(logarithm, axis=0)  # k: from line k to k + 1
    beside = slopes[:-4] + slopes[1:-3] + slopes[3:-1] + slopes[4:]
    steps = slopes[2:-2] - beside / 4  # into line k + 3
    middle = logarithm.shape[1] // 2
    halves = [_significant(half) for half in (steps[:, :middle], steps[:, middle:])]
    largest = np.max(np.abs(halves), axis=0)
    best = int(largest.argmax())
    elsewhere = np.delete(largest, slice(max(best - 3, 0), best + 4))
    if largest[best] == 0 or elsewhere.max(initial=0) * OTHERS > largest[best]:
        return None
    if not MARGIN <= best + 3 <= count - MARGIN:
        return None
    return _Edge(best + 3, float(halves[0][best]), float(halves[1][best]))


def _significant(steps: Float[np.ndarray, "n m"]) -> Float[np.ndarray, " n"]:
    """Median of the steps into every line, 0 where there is hardly one.

    Lines of few pixels are those at the rim of a disc. A step between lines that are smooth on both
    sides has −1/4 of itself beside it, as these are differences from slopes around.
    """
    known = np.isfinite(steps)
    counts = known.sum(1)
    if counts.max(initial=0) < FEWEST:
        return np.zeros(len(steps))
    enough = counts >= max(FEWEST, counts.max() / 2)
    medians = np.array(
        [np.median(v[k]) if k.any() else 0.0 for v, k in zip(steps, known, strict=True)]
    )
    scatter = 1.48 * float(np.median(np.abs(steps[known])))
    least = np.maximum(LEAST_STEP, DEVIATIONS * 1.25 * scatter / np.sqrt(np.maximum(counts, 1)))
    within = (
        np.abs(steps - medians[:, None]) < np.maximum(UNLIKE * np.abs(medians), scatter)[:, None]
    )
    enough &= (within & known).sum(1) > MOST * counts
    before, after = np.append(0, medians[:-1]), np.append(medians[1:], 0)
    beside = np.maximum(np.abs(before + medians / 4), np.abs(after + medians / 4))
    large = enough & (np.abs(medians) > least) & (beside < UNLIKE * np.abs(medians))
    return np.where(large, medians, 0.0)
