"""Recordings of live series (`io.stream`): frames in the order in which they arrived.

A frame that came twice counts once; lost frames are left out, and so is a last record that was cut.
Positions that were measured beside the frames are in a file of the same name, ending in
`.positions.txt`, as lines `number y x` [Å]; frames without one are left out.
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
    measured = measured_positions(path, series.frames)
    inside = (arrived >= 0) & (arrived < series.frames)
    if measured is not None:
        inside &= np.isfinite(measured[np.clip(arrived, 0, series.frames - 1)]).all(1)
    arrived = arrived[inside]
    row = row[inside]
    if not len(row):
        raise ValueError(
            f"{path} holds no frame of its series, or none with a position; nothing had come when "
            "it ended"
        )
    kind = series.dtype.newbyteorder("=")

    def read(shots: np.ndarray) -> np.ndarray:
        return np.asarray(records[row[shots]]["pixels"]).astype(kind)

    reading = announced(series, path)
    frames = Frames((len(row), *series.shape), kind, read)
    if len(arrived) == series.frames and measured is None:
        return replace(reading, patterns=frames)
    known = commanded_positions(series) if measured is None else measured
    positions = None if known is None else known[arrived]
    if len(arrived) == series.frames:
        return replace(reading, patterns=frames, positions=positions)
    values = {name: value for name, value in reading.values.items() if name != "scan_shape"}
    what = "are missing" if measured is None else "or their positions are missing"
    lost = f"{series.frames - len(arrived)} of {series.frames} frames {what}"
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


def positions_file(recording: Path) -> Path:
    """File of the positions that were measured beside the frames of a recording."""
    return recording.with_suffix(".positions.txt")


def measured_positions(recording: Path, frames: int) -> np.ndarray | None:
    """Positions (y, x) [Å] of all frames, NaN where there is none; None if none were measured."""
    path = positions_file(recording)
    if not path.is_file():
        return None
    if not path.stat().st_size:
        return np.full((frames, 2), np.nan)
    rows = np.loadtxt(path, ndmin=2)
    if rows.shape[1] != 3:
        raise ValueError(f"{path} has {rows.shape[1]} columns; number, y and x are required")
    numbers = rows[:, 0].astype(int)
    inside = (numbers >= 0) & (numbers < frames)
    found = np.full((frames, 2), np.nan)
    found[numbers[inside]] = rows[inside, 1:]
    return found


def unplaced(recording: Path) -> int:
    """Number of frames of a recording whose positions were to be measured and never came."""
    series, records = read_records(recording)
    measured = measured_positions(recording, series.frames)
    if measured is None:
        return 0
    numbers = np.unique(np.clip(records["number"], 0, series.frames - 1))
    return int(np.isnan(measured[numbers]).any(1).sum())


def read_records(path: Path) -> tuple[Series, np.ndarray]:
    """Series of a recording, and its complete records [number, pixels], mapped from the disk."""
    with open(path, "rb") as file:
        line = file.readline(HEADER_BYTES)
    series = parse_series(line, path)
    count = (path.stat().st_size - len(line)) // series.record.itemsize
    if count == 0:
        return series, np.empty(0, series.record)
    return series, np.memmap(path, series.record, "r", len(line), (count,))
