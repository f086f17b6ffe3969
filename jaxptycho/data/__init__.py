"""Measured counts and the batches drawn from them: the host's side of the inverse problem."""

from .batch import Batch, Rows, at_hand
from .batching import batches, make_batch, split, stacked
from .dataset import Dataset
from .prefetching import prefetch
from .process_shard import ALONE, Sharing

__all__ = [
    "ALONE",
    "Batch",
    "Dataset",
    "Rows",
    "Sharing",
    "at_hand",
    "batches",
    "make_batch",
    "prefetch",
    "split",
    "stacked",
]
