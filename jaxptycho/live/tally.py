"""Frames of a series by their numbers: which are new, late, double, or lost."""

import numpy as np
from jaxtyping import Bool, Float, Int


class Tally:
    """Counts of the frames of a series; every frame counts once, whenever it comes."""

    def __init__(self, frames: int):
        self.frames = frames
        self.seen: Bool[np.ndarray, " frame"] = np.zeros(frames, bool)
        self.newest = -1
        self.late = 0  # that came after one of a higher number
        self.doubled = 0
        self.foreign = 0  # with numbers beyond the series

    def add(self, numbers: Int[np.ndarray, " b"]) -> Float[np.ndarray, " b"]:
        """Weights of arriving frames: 1 for each that is new, else 0."""
        inside = (numbers >= 0) & (numbers < self.frames)
        self.foreign += int(np.sum(~inside))
        places = np.where(inside, numbers, 0)
        first = np.zeros(len(numbers), bool)
        first[np.unique(numbers, return_index=True)[1]] = True
        new = inside & first & ~self.seen[places]
        self.doubled += int(np.sum(inside & ~new))
        before = np.maximum.accumulate(np.r_[self.newest, numbers])[:-1]
        self.late += int(np.sum(new & (numbers < before)))
        self.seen[numbers[new]] = True
        self.newest = max(self.newest, int(numbers[inside].max(initial=-1)))
        return new.astype(np.float32)

    @property
    def arrived(self) -> int:
        """Different frames that have come."""
        return int(self.seen.sum())

    @property
    def missing(self) -> int:
        """Frames that have not come although later ones have."""
        return self.newest + 1 - int(self.seen[: self.newest + 1].sum())
