"""Sharing of the first reading of patterns among processes, with the findings combined."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class ProcessShard(NamedTuple):
    """Part of the patterns that a process reads (by default all), and reductions over processes."""

    part: tuple[int, int] = (0, 1)  # the i-th of n
    summed: Callable[[np.ndarray], np.ndarray] = lambda values: values  # over all processes
    # of the first process with a message
    said: Callable[[str | None], str | None] = lambda mine: mine

    def own(self, n: int) -> tuple[int, int]:
        """Range [first, stop) of `n` patterns that this process reads."""
        i, of = self.part
        return n * i // of, n * (i + 1) // of


ALONE = ProcessShard()
