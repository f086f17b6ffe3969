"""Batches: some shots of one view with their counts."""

from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float, Int, Num


class Rows(eqx.Module):
    """Indices of the counts of shots in a table of patterns on the device."""

    index: Int[Array | np.ndarray, "*step b"]
    table: Num[Array, "n y x"] | None = None


class Batch(eqx.Module):
    """Shots of one view. A short last batch is padded with `weight` 0.

    Several batches of one shape, stacked along a first axis, also form a batch (`stacked`).
    """

    view: int | np.integer | Int[Array | np.ndarray, "*step"]
    shots: Int[Array | np.ndarray, "*step b"]
    counts: Num[Array | np.ndarray, "*step b y x"] | Rows  # zero frequency in the corner
    weight: Float[Array | np.ndarray, "*step b"]


def materialize(batch: Batch) -> Batch:
    """The batch with its counts in place of their rows in a table."""
    if not isinstance(batch.counts, Rows):
        return batch
    table: Any = batch.counts.table
    counts = table.at[batch.counts.index].get(mode="promise_in_bounds")
    return Batch(batch.view, batch.shots, counts, batch.weight)
