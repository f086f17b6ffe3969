"""Reading of all patterns of a dataset once, each of several processes a part of them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from .patterns import Chosen, Patterns
from .process_shard import ProcessShard
from .spikes import spikes
from .torn_patterns import torn_pairs

BLOCK = 64  # patterns read at once


class FirstPass(NamedTuple):
    """Sums over patterns and pixels, and what marks single patterns."""

    clipped: int  # negative counts, set to zero
    dose: list[Float[np.ndarray, " _"]]  # of every shot; NaN and inf mark counts that are unusable
    total: list[Float[np.ndarray, "y x"]]  # of every view, zero frequency in the corner
    spikes: list[Float[np.ndarray, " _"]]  # see `spikes`
    torn: list[Float[np.ndarray, " _"]]  # 1 where a part is equal to that of the next or the last


def first_pass(
    views: Sequence[Patterns | Chosen],
    n_shots: Sequence[int],
    shape: tuple[int, int],
    sharing: ProcessShard,
    limits: Float[np.ndarray, "y x"] | None,
) -> FirstPass:
    """Read every pattern; with `limits` of spikes, single patterns are looked at as well.

    Raises ValueError, in all processes, where one of them cannot read its part.
    """
    corner = None if limits is None else np.fft.ifftshift(limits)
    mine = FirstPass(
        0,
        [np.zeros(n) for n in n_shots],
        [np.zeros(shape) for _ in n_shots],
        [np.zeros(n) for n in n_shots],
        [np.zeros(n) for n in n_shots],
    )
    wrong = None
    clipped = 0
    try:
        for view, patterns in enumerate(views):
            first, end = sharing.own(n_shots[view])
            for start in range(first, end, BLOCK):
                clipped += _look(mine, view, patterns, start, min(start + BLOCK, end), corner)
    except ValueError as error:
        wrong = str(error)
    if wrong := sharing.said(wrong):
        raise ValueError(wrong)
    return _of_all(mine._replace(clipped=clipped), sharing)


def _look(mine: FirstPass, view: int, clean: Patterns | Chosen, start: int, stop: int, limits):
    """Add the patterns `start` to `stop` of a view; number of negative counts."""
    seen = clean.look(start, stop)
    rows = seen.patterns.sum(2, dtype=float)
    mine.dose[view][start:stop] = rows.sum(1)
    mine.total[view] += seen.patterns.sum(0, dtype=float)
    if seen.too_large is not None:
        mine.dose[view][start:stop][seen.too_large] = np.inf
    if seen.not_finite is not None:
        mine.dose[view][start:stop][seen.not_finite] = np.nan
    if limits is not None:
        mine.spikes[view][start:stop] = spikes(seen.patterns, limits)
        columns = seen.patterns.sum(1, dtype=float)
        pairs = np.flatnonzero(torn_pairs(seen.patterns, rows, columns))
        mine.torn[view][start + pairs] = mine.torn[view][start + pairs + 1] = 1
    return seen.negative


def _of_all(mine: FirstPass, sharing: ProcessShard) -> FirstPass:
    """Findings of all processes."""
    lists = (mine.dose, mine.total, mine.spikes, mine.torn)
    parts = [part for of_views in lists for part in of_views]
    found = sharing.summed(np.concatenate([[mine.clipped], *(part.ravel() for part in parts)]))
    ends = np.cumsum([part.size for part in parts])
    pieces = iter(np.split(found[1:], ends[:-1]))
    whole = [[next(pieces).reshape(part.shape) for part in of_views] for of_views in lists]
    return FirstPass(int(found[0]), *whole)
