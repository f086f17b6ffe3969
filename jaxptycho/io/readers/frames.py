"""Patterns in files, read shot by shot when they are indexed."""

import bisect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..hdf5 import H5, open_hdf5, read_rows

Decode = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class Frames:
    """Patterns [shot, y, x] that `read(numbers of shots)` brings from a file."""

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[np.ndarray], np.ndarray]

    def __getitem__(self, index: Any) -> np.ndarray:
        shots = np.arange(self.shape[0])[index]
        return self.read(shots) if shots.ndim else self.read(shots[None])[0]


def array_frames(patterns: np.ndarray) -> Frames:
    """Patterns of an array in memory [shot, y, x]."""
    n, y, x = patterns.shape
    return Frames((n, y, x), patterns.dtype, lambda shots: patterns[shots])


def record_frames(
    path: str | Path,
    record: np.dtype,
    count: int,
    offset: int,
    shape: tuple[int, ...],
    decode: Decode | None = None,
    dtype: Any = None,
    mark: bytes = b"",
) -> Frames:
    """Patterns of `count` records of equal size in a binary file, from byte `offset`.

    `decode` makes patterns [shot, *shape] of an array of records, which begin with `mark`. The file
    is open only while it is read, and read shot by shot: nothing is mapped.
    """

    def read(shots: np.ndarray) -> np.ndarray:
        with open(path, "rb") as file:
            parts = [_records(file, path, record, offset, run, mark) for run in runs(shots)]
        return (decode or (lambda raw: raw))(_together(parts, record)).reshape(-1, *shape)

    return Frames((count, *shape), np.dtype(dtype or record.base), read)


def written_records(
    path: str | Path, record: np.dtype, count: int, offset: int, mark: bytes
) -> int:
    """Number of the `count` records before the first that does not begin with `mark`.

    Space for a file may be claimed before its frames are written.
    """
    with open(path, "rb") as file:

        def absent(number: int) -> bool:
            file.seek(offset + number * record.itemsize)
            return file.read(len(mark)) != mark

        return bisect.bisect_left(range(count), True, key=absent) if absent(count - 1) else count


def _records(
    file: BinaryIO, path: str | Path, record: np.dtype, offset: int, run: np.ndarray, mark: bytes
) -> np.ndarray:
    file.seek(offset + int(run[0]) * record.itemsize)
    # bytes, because a file may give a subarray as its record
    found = np.fromfile(file, np.uint8, len(run) * record.itemsize)
    if found.size < len(run) * record.itemsize:
        raise ValueError(f"{path} ends before shot {run[-1]}; copy it again")
    begins = found.reshape(len(run), -1)[:, : len(mark)]
    wrong = (begins != np.frombuffer(mark, np.uint8)).any(1)
    if wrong.any():
        raise ValueError(
            f"{path} is damaged or half written: shot {run[wrong][0]} does not begin as a frame "
            "does; copy it again"
        )
    return found


def _together(parts: list[np.ndarray], record: np.dtype) -> np.ndarray:
    joined = np.concatenate([*parts, np.empty(0, np.uint8)])
    base, shape = record.subdtype or (record, ())
    return joined.view(base).reshape(-1, *shape)


def stored_frames(stored: H5, axes: tuple[int, ...] | None = None) -> Frames:
    """Patterns of an HDF5 dataset whose `axes` are (shot, y, x) or (scan y, scan x, y, x).

    By default in this order. The shots of a scan are numbered line by line, x fastest.
    """
    path, name = Path(stored.file.filename).resolve(), stored.name
    axes = tuple(range(stored.ndim)) if axes is None else axes
    scan, frame = axes[:-2], axes[-2:]
    width = stored.shape[scan[-1]]

    def read(shots: np.ndarray) -> np.ndarray:
        with open_hdf5(path) as file:
            if axes == (0, 1, 2):  # all at once, on all cores
                return read_rows(file[name], shots)
            parts = [_cut(file[name], axes, run, width) for run in runs(shots, width)]
        empty = np.empty((0, *(stored_shape[axis] for axis in frame)), kind)
        return np.concatenate([*parts, empty])

    stored_shape, kind = stored.shape, stored.dtype
    shape = (math.prod(stored_shape[a] for a in scan), *(stored_shape[a] for a in frame))
    return Frames(shape, kind, read)


def _cut(stored: Any, axes: tuple[int, ...], run: np.ndarray, width: int) -> np.ndarray:
    """Patterns [shot, y, x] of shots of one line."""
    before = (int(run[0]) // width,) if len(axes) == 4 else ()
    columns = slice(int(run[0]) % width, int(run[-1]) % width + 1)
    if axes == tuple(range(len(axes))) and hasattr(stored, "id"):
        return read_rows(stored, (*before, columns))
    index: list[Any] = [slice(None)] * len(axes)
    index[axes[-3]] = columns
    if before:
        index[axes[0]] = before[0]
    left = [axis for axis in range(len(axes)) if not before or axis != axes[0]]
    order = [left.index(axis) for axis in axes[-3:]]
    return np.transpose(np.asarray(stored[tuple(index)]), order)


def zarr_frames(stored: Any, axes: tuple[int, ...] | None = None) -> Frames:
    """Patterns of an array that is sliced as those of zarr and dask are; `axes` as in
    `stored_frames`.
    """
    axes = tuple(range(stored.ndim)) if axes is None else axes
    width = stored.shape[axes[-3]]
    shape = (
        math.prod(stored.shape[a] for a in axes[:-2]),
        *(stored.shape[a] for a in axes[-2:]),
    )

    def read(shots: np.ndarray) -> np.ndarray:
        parts = [_cut(stored, axes, run, width) for run in runs(shots, width)]
        return np.concatenate([*parts, np.empty((0, *shape[1:]), stored.dtype)])

    return Frames(shape, np.dtype(stored.dtype), read)


def guarded_frames(frames: Frames, path: Path) -> Frames:
    """The same patterns; damage of any kind that reading them meets is one sentence."""

    def read(shots: np.ndarray) -> np.ndarray:
        try:
            return frames.read(shots)
        except Exception as error:  # of any library that decompresses
            line = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(
                f"the patterns of {path} cannot be read ({line}); if it is damaged, copy it again"
            ) from error

    return replace(frames, read=read)


def joined_frames(parts: Sequence[Frames]) -> Frames:
    """Patterns of several files or datasets, one after the other."""
    if len(parts) == 1:
        return parts[0]
    starts = np.cumsum([0, *(part.shape[0] for part in parts)])

    def read(shots: np.ndarray) -> np.ndarray:
        where = np.searchsorted(starts, shots, side="right") - 1
        found = np.empty((len(shots), *parts[0].shape[1:]), kind)
        for number in np.unique(where):
            chosen = where == number
            found[chosen] = parts[number].read(shots[chosen] - starts[number])
        return found

    kind = np.result_type(*(part.dtype for part in parts))
    return Frames((int(starts[-1]), *parts[0].shape[1:]), kind, read)


def part_of(frames: Frames, first: int, stop: int) -> Frames:
    """Patterns `first` to `stop` of `frames`."""
    shape = (stop - first, *frames.shape[1:])
    return Frames(shape, frames.dtype, lambda shots: frames.read(shots + first))


def runs(shots: np.ndarray, width: int | None = None) -> list[np.ndarray]:
    """Shots in runs of consecutive ones, which end at multiples of `width`."""
    breaks = np.diff(shots) != 1
    if width is not None:
        breaks |= shots[1:] % width == 0
    return [run for run in np.split(shots, np.flatnonzero(breaks) + 1) if run.size]
