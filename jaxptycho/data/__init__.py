"""Measured counts and batches of them: the host side of the inverse problem."""

from .batch import Batch, Rows, materialize
from .batching import batches, make_batch, split, stacked
from .dataset import Dataset
from .prefetching import prefetch
from .process_shard import ALONE, ProcessShard

__all__ = [
    "ALONE",
    "Batch",
    "Dataset",
    "ProcessShard",
    "Rows",
    "batches",
    "make_batch",
    "materialize",
    "prefetch",
    "split",
    "stacked",
]
