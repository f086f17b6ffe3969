"""Recordings of live series (`io.stream`): frames in the order in which they arrived.

A frame that came twice counts once; lost frames are left out, and so is a last record that was cut.
"""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..scan_layout import raster_positions
from ..stream import FORMAT, HEADER_BYTES, Series, parse_series
from .frames import Frames
from .reading import QUANTITIES, Reading, stated
from .source import Source


def is_stream(source: Source) -> bool:
    """True for the recording of a live series."""
    return source.head.startswith(b'{"format": "' + FORMAT.encode())


def read_stream(path: Path) -> Reading:
    """Reading of the frames that came, by their numbers."""
    series, records = read_records(path)
    numbers = np.asarray(records["number"])
    arrived, row = np.unique(numbers, return_index=True)
    inside = (arrived >= 0) & (arrived < series.frames)
    arrived = arrived[inside]
    row = row[inside]
    if not len(row):
        raise ValueError(f"{path} holds no frame of its series; nothing had come when it ended")
    kind = series.dtype.newbyteorder("=")

    def read(shots: np.ndarray) -> np.ndarray:
        return np.asarray(records[row[shots]]["pixels"]).astype(kind)

    reading = announced(series, path)
    frames = Frames((len(row), *series.shape), kind, read)
    if len(arrived) == series.frames:
        return replace(reading, patterns=frames)
    commanded = commanded_positions(series)
    positions = None if commanded is None else commanded[arrived]
    values = {name: value for name, value in reading.values.items() if name != "scan_shape"}
    lost = f"{series.frames - len(arrived)} of {series.frames} frames are missing"
    return replace(reading, patterns=frames, values=values, positions=positions, notes=(lost,))


def announced(series: Series, path: Path) -> Reading:
    """What a series announces, as the reading of a file whose frames are all zero."""
    kind = series.dtype.newbyteorder("=")
    shape = (series.frames, *series.shape)
    frames = Frames(shape, kind, lambda shots: np.zeros((len(shots), *series.shape), kind))
    values = stated(
        **{name: (series.about[name], name) for name in QUANTITIES if name in series.about}
    )
    order = series.about.get("scan_order", "raster")
    return Reading(
        path, "recording of a live series", frames, values, series.positions, order=order
    )


def commanded_positions(series: Series) -> np.ndarray | None:
    """Positions (y, x) [Å] of all frames, None where neither they nor a raster are stated."""
    about = series.about
    if series.positions is not None:
        return series.positions
    if not {"scan_shape", "step_angstrom"} <= set(about):
        return None
    if math.prod(about["scan_shape"]) != series.frames:
        return None
    order = about.get("scan_order", "raster")
    return raster_positions(about["scan_shape"], about["step_angstrom"], order)


def read_records(path: Path) -> tuple[Series, np.ndarray]:
    """Series of a recording, and its complete records [number, pixels], mapped from the disk."""
    with open(path, "rb") as file:
        line = file.readline(HEADER_BYTES)
    series = parse_series(line, path)
    count = (path.stat().st_size - len(line)) // series.record.itemsize
    if count == 0:
        return series, np.empty(0, series.record)
    return series, np.memmap(path, series.record, "r", len(line), (count,))
