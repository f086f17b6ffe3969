"""Reading of measured counts in any known format."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from ..data import ALONE, Dataset, ProcessShard
from .arrangement import Arrangement
from .axis import QUARTER, quarter_turns
from .cxi import CXI_PROPERTIES, is_cxi, read_cxi
from .hdf5 import open_hdf5
from .instrument import INSTRUMENT, check_known
from .native import FORMAT, read_native

ORIGINS = ("axis", "middle")  # of the positions of a tilt series

# The eight orientations of the axes of a scan relative to those of the detector, as matrices on
# (y, x); rotations are counter-clockwise as seen with y downwards.
SCAN_TRANSFORMS = {
    "none": ((1, 0), (0, 1)),
    "flip_y": ((-1, 0), (0, 1)),
    "flip_x": ((1, 0), (0, -1)),
    "rotate_90": ((0, -1), (1, 0)),
    "rotate_180": ((-1, 0), (0, -1)),
    "rotate_270": ((0, 1), (-1, 0)),
    "transpose": ((0, 1), (1, 0)),
    "antitranspose": ((0, -1), (-1, 0)),
}


class Reader(NamedTuple):
    """Format of a file: a test of an open HDF5 file, and the function that reads it."""

    recognises: Callable[[h5py.File], bool]
    read: Callable[..., Dataset]  # (path, sharing, arrangement, **known)


def is_native(file: h5py.File) -> bool:
    """True for an open file of the native format."""
    named = str(file.attrs.get("format")) == FORMAT
    return named or bool({"counts", "positions", "views"} & set(file))


READERS: dict[str, Reader] = {
    "cxi": Reader(is_cxi, read_cxi),
    "native": Reader(is_native, read_native),
}


def read(
    path: str | Path,
    sharing: ProcessShard = ALONE,
    reader: str | Callable[..., Dataset] | None = None,
    **known: Any,
) -> Dataset:
    """Return the dataset of a file in one of `READERS`, recognised by its contents.

    `reader` is the name of a format, or a function `read(path, **known) -> Dataset` of yours.
    `known` gives properties that the file lacks or states wrongly, under the names of the native
    format (`voltage_kv`, `pixel_angstrom`, `semiangle_mrad`, `defocus_angstrom` …); `near_field`
    and `focus_to_sample_angstrom` as in `read_cxi`; `scan_transform`, one of `SCAN_TRANSFORMS`,
    rotates or flips the scan about its middle, or about the origin for a tilt series, through
    which the tilt axis goes. `tilt_axis_deg` is the direction of that axis in the patterns, from y
    towards x. `origin` is that of the positions of a tilt series: the "axis", or the corner of a
    scan through whose "middle" the axis goes (in every view separately). `position_unit`,
    `zero_frequency`, `counts_per_electron` and `bad_data` as in `Arrangement`. None means unknown.
    Each process reads its part of the patterns (`sharing`). Raises ValueError, or
    FileNotFoundError, in one sentence.
    """
    transform = known.pop("scan_transform", None) or "none"
    if transform not in SCAN_TRANSFORMS:
        raise ValueError(
            f"no scan_transform is called {transform!r}; known are {', '.join(SCAN_TRANSFORMS)}"
        )
    arrangement = Arrangement.taken_from(known)
    origin = known.pop("origin", None) or "axis"
    if origin not in ORIGINS:
        raise ValueError(f"no origin is called {origin!r}; known are {', '.join(ORIGINS)}")
    if callable(reader):
        axis = known.get("tilt_axis_deg") or 0.0
        data = reader(path, **known)
        if not isinstance(data, Dataset):
            raise ValueError(
                f"the reader {getattr(reader, '__name__', reader)} returned a "
                f"{type(data).__name__}; it must return a jaxptycho.Dataset"
            )
    else:
        known = check_known(known, dict.fromkeys(INSTRUMENT + CXI_PROPERTIES))
        with open_hdf5(path) as file:
            axis = known.get("tilt_axis_deg", file.attrs.get("tilt_axis_deg", 0.0))
            chosen = READERS[reader] if reader is not None else reader_of(file, path)
        data = chosen.read(path, sharing, arrangement, **known)
    if data.tilts is None and known.get("tilt_axis_deg") is not None:
        raise ValueError(
            f"tilt_axis_deg came for {path}, which gives no tilts; write tilt_deg [view] beside "
            "its counts"
        )
    if transform != "none":
        middles = [own.mean(0) if data.tilts is None else np.zeros(2) for own in data.positions]
        pairs = zip(data.positions, middles, strict=True)
        turn = np.linalg.matrix_power(QUARTER, quarter_turns(float(axis)))  # as the patterns were
        matrix = turn @ np.array(SCAN_TRANSFORMS[transform]) @ turn.T
        data.positions = [_turned(positions, middle, matrix) for positions, middle in pairs]
    if origin == "middle":
        data.positions = [own - (own.min(0) + own.max(0)) / 2 for own in data.positions]
    return data


def reader_of(file: h5py.File, path: str | Path) -> Reader:
    """Return the reader of an open file; ValueError if its format is unknown."""
    found = [reader for reader in READERS.values() if reader.recognises(file)]
    if found:
        return found[0]
    kind = file.attrs.get("format", f"an HDF5 file with {', '.join(file) or 'nothing in it'}")
    raise ValueError(
        f"{path} is neither a native dataset (/counts and /positions) nor a CXI file (/entry_1), "
        f"but {kind}"
    )


def _turned(positions: np.ndarray, middle, matrix) -> np.ndarray:
    return (positions - middle) @ np.transpose(matrix) + middle
