"""How processes share the first look at the patterns: each reads its own part, and all learn what was found."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class ProcessShard(NamedTuple):
    """Which part is read here, and how all parts come together; by itself a process reads everything."""

    part: tuple[int, int] = (0, 1)  # the i-th of n
    summed: Callable[[np.ndarray], np.ndarray] = lambda values: values  # over all processes
    said: Callable[[str | None], str | None] = lambda mine: (
        mine
    )  # by the first that has something to say

    def own(self, n: int) -> tuple[int, int]:
        """The first of `n` patterns that is read here, and the first that is not any more."""
        i, of = self.part
        return n * i // of, n * (i + 1) // of


ALONE = ProcessShard()
