"""An HDF5 file that another program is writing in SWMR mode (single writer, multiple readers).

A frame has come once the dataset has grown over it and its chunk is on the disk.
"""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ...io.hdf5 import H5
from ...io.readers.source import arrays_in, find_dataset, require_filters
from ...io.stream import Series
from ..intake import Intake
from .connection import POLL, Patience, Silent


def receive_hdf5(path: Path, intake: Intake, waits: Patience) -> None:
    """Hand over the frames of the only dataset of patterns as it grows, in its order.

    A dataset [scan y, scan x, y, x] is taken line by line. Raises ValueError where neither the
    dataset nor the given scan says how many frames will come, and for a dataset whose space was
    taken before its frames were written.
    """
    with _opened(path, waits) as file:
        stored = _patterns(file, path, waits)
        series = _series(stored, path, intake.given)
        per_row = math.prod(stored.shape[1:-2])
        intake.begin(series)
        most = -(-series.frames // per_row)
        rows = 0
        while rows < most:
            stored.refresh()
            complete = min(complete_rows(stored, rows), most)
            if complete == rows:
                waits.tried()
                time.sleep(POLL)
                continue
            waits.fed()
            for row in range(rows, complete):
                _hand_over(stored[row].reshape(-1, *series.shape), row * per_row, intake)
            rows = complete
        intake.end()


def complete_rows(stored: H5, known: int = 0) -> int:
    """Rows (of the first axis) from the beginning of a dataset that are complete, `known` of them
    already.
    """
    length = stored.shape[0]
    depth = stored.chunks[0]
    sizes = zip(stored.shape[1:], stored.chunks[1:], strict=True)
    last = [(size - 1) // chunk * chunk for size, chunk in sizes]
    row = known
    while row < length:
        start = row // depth * depth
        if stored.id.get_chunk_info_by_coord((start, *last)).byte_offset is None:
            break
        row = min(start + depth, length)
    return row


def _hand_over(frames: np.ndarray, first: int, intake: Intake) -> None:
    done = 0
    while done < len(frames):
        slots = intake.room(len(frames) - done)
        part = frames[done : done + len(slots)]
        slots["number"] = first + done + np.arange(len(part))
        slots["pixels"] = part
        intake.commit(len(part))
        done += len(part)


@contextmanager
def _opened(path: Path, waits: Patience) -> Iterator[H5]:
    """The file once its writer is in SWMR mode; before that it is locked."""
    while True:
        try:
            file = h5py.File(path, "r", swmr=True)
            break
        except OSError as error:
            _wait(waits, f"{path} cannot be read while it is written ({error}); {SWMR}")
    with file:
        yield file


SWMR = "its writer has to set swmr_mode (HDF5 1.10, libver='latest')"


def _patterns(file: H5, path: Path, waits: Patience) -> H5:
    """The dataset of patterns once there is one frame of it."""
    while not (found := arrays_in(file)):
        for stored in _datasets(file):
            stored.refresh()
        _wait(waits, f"{path} has no array of patterns (three or four axes of real numbers) yet")
    stored = found[0] if len(found) == 1 else find_dataset(file, path)
    require_filters(stored, path)
    if not _tells(stored):
        raise ValueError(
            f"nothing tells which frames of {stored.name} in {path} are written, as their space is "
            "taken before; a dataset that grows, or has a chunk for every frame, is required"
        )
    return stored


def _tells(stored: H5) -> bool:
    """True if a dataset grows, or every frame takes its space when it is written."""
    if stored.chunks is None:
        return False
    grows = stored.maxshape[0] is None or stored.maxshape[0] > stored.shape[0]
    early = stored.id.get_create_plist().get_alloc_time() == h5py.h5d.ALLOC_TIME_EARLY
    return not early and (grows or stored.chunks[0] == 1)


def _datasets(group: H5) -> list[H5]:
    """All datasets in a group and in its groups."""
    found: list[H5] = []
    group.visititems(lambda _, item: found.append(item) if hasattr(item, "refresh") else None)
    return found


def _series(stored: H5, path: Path, given: dict[str, Any]) -> Series:
    """Series of a dataset, of as many frames as it will have."""
    per_row = math.prod(stored.shape[1:-2])
    shape = given.get("scan_shape")
    most = stored.maxshape[0]
    if shape is not None:
        frames = math.prod(shape)
    elif most is not None:
        frames = most * per_row
    else:
        raise ValueError(
            f"{stored.name} in {path} may grow without end; say how many frames will come, as in "
            "--set scan_shape=[64,64]"
        )
    about = {"scan_shape": [most, stored.shape[1]]} if stored.ndim == 4 and most else {}
    y, x = stored.shape[-2:]
    return Series(path.stem, frames, (y, x), stored.dtype.newbyteorder("="), about)


def _wait(waits: Patience, fault: str) -> None:
    try:
        waits.tried()
    except Silent:
        raise ValueError(fault) from None
    time.sleep(POLL)
