"""Some shots of one view, as a step takes them."""

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float, Int, Num


class Rows(eqx.Module):
    """Where the counts of shots stand in a table of patterns that the device keeps."""

    index: Int[Array | np.ndarray, "*step b"]
    table: Num[Array, "n y x"] | None = None


class Batch(eqx.Module):
    """Some shots of one view. A short last batch is padded with `weight` 0.

    Several batches of one shape, stacked along a first axis, are also one (`stacked`).
    """

    view: int | np.integer | Int[Array | np.ndarray, "*step"]
    shots: Int[Array | np.ndarray, "*step b"]
    counts: Num[Array | np.ndarray, "*step b y x"] | Rows  # zero frequency in the corner
    weight: Float[Array | np.ndarray, "*step b"]


def materialize(batch: Batch) -> Batch:
    """The batch with its counts, where it only says which rows of a table they are."""
    if not isinstance(batch.counts, Rows):
        return batch
    counts = batch.counts.table.at[batch.counts.index].get(mode="promise_in_bounds")  # pyright: ignore[reportOptionalMemberAccess]
    return Batch(batch.view, batch.shots, counts, batch.weight)
