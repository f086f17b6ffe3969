"""Compressed rows of HDF5 datasets, inflated on all cores: HDF5 itself works on one, under a lock of its own."""

import functools
import math
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import h5py
import numpy as np

from ..kernels.selection import cores

GZIP, SHUFFLE = h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE


def read_chunks(stored: Any, before: tuple[int, ...], rows: np.ndarray) -> np.ndarray | None:
    """`stored[*before, rows]` of numbers whose chunks are whole rows, compressed by gzip.

    None for any other dataset, and where a chunk is not as it should be: HDF5 reads it, or says what is wrong with it.
    """
    filters, chunk, row = _filters(stored), stored.chunks, stored.shape[len(before) + 1 :]
    if filters not in ([GZIP], [SHUFFLE, GZIP]) or chunk != (
        *(1 for _ in before),
        chunk[len(before)],
        *row,
    ):
        return None
    together, found = chunk[len(before)], np.empty((len(rows), *row), stored.dtype)
    apart = (
        found.itemsize if SHUFFLE in filters else 1
    )  # all first bytes of numbers, then all second ones …
    size = math.prod(row) * found.itemsize  # bytes of a row
    numbers = found.view(np.uint8).reshape(len(rows), size // apart, apart)
    wanted = {}  # of each chunk: where its rows go
    for place, number in enumerate(rows.tolist()):
        wanted.setdefault(number // together, []).append((place, number % together))

    def fill(chunks):
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
    """The numbers of the filters that a dataset's chunks go through, in order."""
    made = stored.id.get_create_plist()
    return [made.get_filter(i)[0] for i in range(made.get_nfilters())]


def _packed(stored, start) -> bytes:
    """The chunk that begins at `start`; ValueError where it was not filtered as others, RuntimeError where none is."""
    skipped, packed = stored.id.read_direct_chunk(start)
    if skipped:
        raise ValueError(f"the chunk at {start} went through other filters than the rest")
    return packed


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(cores())
