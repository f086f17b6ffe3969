"""Compressed rows of HDF5 datasets, decompressed on all cores.

HDF5 itself uses one core, under a global lock.
"""

import functools
import math
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import h5py
import numpy as np

from ..kernels.selection import cores

GZIP = h5py.h5z.FILTER_DEFLATE
SHUFFLE = h5py.h5z.FILTER_SHUFFLE


def read_chunks(stored: Any, before: tuple[int, ...], rows: np.ndarray) -> np.ndarray | None:
    """`stored[*before, rows]` of numbers whose chunks are full rows, compressed by gzip.

    None for any other dataset, and for an invalid chunk, which HDF5 then reads or reports.
    """
    filters = _filters(stored)
    chunk = stored.chunks
    row = stored.shape[len(before) + 1 :]
    if filters not in ([GZIP], [SHUFFLE, GZIP]) or chunk != (
        *(1 for _ in before),
        chunk[len(before)],
        *row,
    ):
        return None
    together = chunk[len(before)]
    found = np.empty((len(rows), *row), stored.dtype)
    # shuffled: all first bytes of numbers, then all second ones …
    apart = found.itemsize if SHUFFLE in filters else 1
    size = math.prod(row) * found.itemsize  # bytes of a row
    numbers = found.view(np.uint8).reshape(len(rows), size // apart, apart)
    wanted = {}  # of each chunk: positions of its rows
    for place, number in enumerate(rows.tolist()):
        wanted.setdefault(number // together, []).append((place, number % together))

    def fill(chunks: list[tuple[bytes, list[tuple[int, int]]]]) -> None:
        for packed, own in chunks:
            plain = zlib.decompress(packed, bufsize=together * size)
            planes = np.frombuffer(plain, np.uint8).reshape(apart, together, -1)
            for place, number in own:
                for byte in range(apart):
                    numbers[place, :, byte] = planes[byte, number]

    try:
        chunks = [
            (_packed(stored, (*before, n * together, *(0 for _ in row))), own)
            for n, own in wanted.items()
        ]
        list(_threads().map(fill, [chunks[i :: cores()] for i in range(cores())]))
    except (zlib.error, OSError, RuntimeError, ValueError):
        return None
    return found


def _filters(stored) -> list[int]:
    """Numbers of the filters of a dataset's chunks, in order."""
    made = stored.id.get_create_plist()
    return [made.get_filter(i)[0] for i in range(made.get_nfilters())]


def _packed(stored, start) -> bytes:
    """The chunk that begins at `start`.

    Raises ValueError for one with other filters, RuntimeError for a missing one.
    """
    skipped, packed = stored.id.read_direct_chunk(start)
    if skipped:
        raise ValueError(f"the chunk at {start} went through other filters than the rest")
    return packed


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(cores())
