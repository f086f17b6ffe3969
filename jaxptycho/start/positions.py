"""Positions of a measurement, mapped to the axes of the detector."""

from copy import copy

import numpy as np
from jaxtyping import Float

from ..data import Dataset


def with_map(data: Dataset, matrix: Float[np.ndarray, "2 2"]) -> Dataset:
    """The measurement, with the positions of every view mapped about their middle."""
    middles = [own.mean(0) for own in data.positions]
    pairs = zip(data.positions, middles, strict=True)
    return with_positions(data, [(own - middle) @ matrix.T + middle for own, middle in pairs])


def with_positions(data: Dataset, positions: list[Float[np.ndarray, "_ 2"]]) -> Dataset:
    """The same patterns at other positions of every view (y, x) [Å]."""
    other = copy(data)
    other.positions = positions
    return other
