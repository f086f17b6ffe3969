"""Two halves of a measurement with independent noise: features common to both are real."""

import numpy as np

from . import ALONE, Dataset, ProcessShard
from .ordering import alternating

BLOCK = 64  # patterns read at once


def checkerboard(data: Dataset) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Two halves of the shots of every view, nearest neighbours in different halves.

    On a raster of any orientation the halves are the fields of a checkerboard: the colour
    alternates along every edge of the minimum spanning tree, which joins nearest neighbours.
    """
    colours = [alternating(positions) for positions in data.positions]
    return [np.flatnonzero(c == 0) for c in colours], [np.flatnonzero(c == 1) for c in colours]


def thinned(
    data: Dataset,
    half: int = 0,
    seed: int = 0,
    fraction: float = 0.5,
    sharing: ProcessShard = ALONE,
) -> Dataset:
    """One of two measurements of all shots, to which quanta are assigned randomly.

    `half` 0 has the `fraction` of them, 1 the others. Counts of a floating type are thinned if
    all are integers, else ValueError. Both parts of a Poisson count split by a binomial
    distribution are Poisson and independent. They are sampled on reading and depend only on
    `seed`, view and shot: the order of reading has no effect, and the two halves always add up
    to the original counts.
    """
    if wrong := sharing.said(_not_whole(data, sharing)):
        raise ValueError(wrong)
    counts = [_Thinned(data, view, half, seed, fraction) for view in range(data.n_views)]
    extras = data.mask, data.tilts, data.probe_guess, dict(data.about)
    thinner = Dataset(counts, data.positions, data.grid, *extras, sharing, data.frame)
    thinner.shots = data.shots
    return thinner


def _not_whole(data: Dataset, sharing: ProcessShard) -> str | None:
    """Reason why quanta cannot be drawn: the first non-integer count in this process's part."""
    for view, counts in enumerate(data.counts):
        first, end = sharing.own(data.n_shots[view])
        for start in range(first, end, BLOCK) if counts.dtype.kind == "f" else ():
            block = data.patterns(view, np.arange(start, min(start + BLOCK, end)))
            parts = block != np.rint(block)
            if parts.any():
                shot = start + int(np.flatnonzero(parts.any((1, 2)))[0])
                return (
                    f"counts are no whole numbers (first: {block[parts][0]:.6g} in shot {shot} of "
                    f"view {view}), and only whole quanta can be drawn: divide them by the counts "
                    "of one electron and round, or split the positions instead (--by positions)"
                )
    return None


class _Thinned:
    """Part of the quanta of one view, clean and in camera layout, sampled when indexed."""

    checked = True  # bad pixels and shots were left out before

    def __init__(self, data: Dataset, view: int, half: int, seed: int, fraction: float):
        self.data = data
        self.view = view
        self.half = half
        self.seed = seed
        self.fraction = fraction
        kind = data.kinds[view]
        self.shape = (data.n_shots[view], *data.grid.shape)
        self.dtype = kind if kind.kind in "ui" else np.dtype("u4")

    def __getitem__(self, index):
        shots = np.arange(self.shape[0])[index]
        whole = self.data.patterns(self.view, shots).astype(np.int64)
        drawn = np.stack([self._draw(*pair) for pair in zip(shots, whole, strict=True)])
        return np.fft.fftshift(whole - drawn if self.half else drawn, axes=(1, 2)).astype(
            self.dtype
        )

    def _draw(self, shot, pattern) -> np.ndarray:
        return np.random.default_rng([self.seed, self.view, shot, 3]).binomial(
            pattern, self.fraction
        )
