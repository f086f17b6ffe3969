"""Any file of measured counts → `Dataset`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from ..data import ALONE, Dataset, ProcessShard
from .arrangement import Arrangement
from .axis import QUARTER, quarter_turns
from .cxi import CXI_PROPERTIES, is_cxi, read_cxi
from .hdf5 import opened
from .instrument import INSTRUMENT, checked
from .native import FORMAT, read_native

ORIGINS = ("axis", "middle")  # of the positions of a tilt series

# The eight ways in which the axes of a scan can lie on those of the detector, as matrices on
# (y, x); turns are counter-clockwise as seen with y downwards.
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
    """One format: whether an open HDF5 file is of it, and how it is read."""

    recognises: Callable[[h5py.File], bool]
    read: Callable[..., Dataset]  # (path, sharing, arrangement, **known)


def is_native(file: h5py.File) -> bool:
    """Whether an open file is of the native format."""
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
    """Dataset of a file of one of `READERS`, told apart by what is in it.

    `reader` is the name of a format, or a function `read(path, **known) -> Dataset` of yours.
    `known` gives what the file lacks or has wrong, under the names of the native format
    (`voltage_kv`, `pixel_angstrom`, `semiangle_mrad`, `defocus_angstrom` …); `near_field` and
    `focus_to_sample_angstrom` as in `read_cxi`; `scan_transform`, one of `SCAN_TRANSFORMS`,
    turns or flips the scan about its middle, those of a tilt series about the origin, through which the
    tilt axis goes. `tilt_axis_deg` is the direction of that axis in the patterns, from y towards x, and `origin` says from
    where positions of a tilt series are counted: the "axis", or the corner of a scan through whose "middle" the axis goes
    (as in every view on its own). `position_unit`, `zero_frequency`, `counts_per_electron` and `bad_data` as in
    `Arrangement`. None stands for what is not known. Each process reads its part of the patterns (`sharing`).
    Raises ValueError, or FileNotFoundError, in one sentence.
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
        known = checked(known, dict.fromkeys(INSTRUMENT + CXI_PROPERTIES))
        with opened(path) as file:
            axis = known.get("tilt_axis_deg", file.attrs.get("tilt_axis_deg", 0.0))
            chosen = READERS[reader] if reader is not None else recognised(file, path)
        data = chosen.read(path, sharing, arrangement, **known)
    if data.tilts is None and known.get("tilt_axis_deg") is not None:
        raise ValueError(
            f"tilt_axis_deg came for {path}, which gives no tilts; write tilt_deg [view] beside its counts"
        )
    if transform != "none":
        middles = [own.mean(0) if data.tilts is None else np.zeros(2) for own in data.positions]
        pairs = zip(data.positions, middles, strict=True)
        turn = np.linalg.matrix_power(
            QUARTER, quarter_turns(float(axis))
        )  # that the patterns have had already
        matrix = turn @ np.array(SCAN_TRANSFORMS[transform]) @ turn.T
        data.positions = [_turned(positions, middle, matrix) for positions, middle in pairs]
    if origin == "middle":
        data.positions = [own - (own.min(0) + own.max(0)) / 2 for own in data.positions]
    return data


def recognised(file: h5py.File, path: str | Path) -> Reader:
    """The reader of an open file; ValueError where none recognises it."""
    found = [reader for reader in READERS.values() if reader.recognises(file)]
    if found:
        return found[0]
    kind = file.attrs.get("format", f"an HDF5 file with {', '.join(file) or 'nothing in it'}")
    raise ValueError(
        f"{path} is neither a native dataset (/counts and /positions) nor a CXI file (/entry_1), but "
        f"{kind}"
    )


def _turned(positions: np.ndarray, middle, matrix) -> np.ndarray:
    return (positions - middle) @ np.transpose(matrix) + middle
