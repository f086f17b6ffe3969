"""Any file of measured counts → `Dataset`."""

from pathlib import Path
from typing import Any

import numpy as np

from ..data import ALONE, Dataset, Sharing
from .arrangement import Arrangement
from .cxi import CXI_PROPERTIES, is_cxi, read_cxi
from .hdf5 import opened
from .instrument import INSTRUMENT, checked
from .native import FORMAT, read_native

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


def read(path: str | Path, sharing: Sharing = ALONE, **known: Any) -> Dataset:
    """Dataset of a native HDF5 or a CXI file, told apart by what is in it.

    `known` gives what the file lacks or has wrong, under the names of the native format
    (`voltage_kv`, `pixel_angstrom`, `semiangle_mrad`, `defocus_angstrom` …); `near_field` and
    `focus_to_sample_angstrom` as in `read_cxi`; `scan_transform`, one of `SCAN_TRANSFORMS`,
    turns or flips the scan about its middle, those of a tilt series about the origin, through which the
    tilt axis goes, y once they are turned; `position_unit`, `zero_frequency`,
    `counts_per_electron` and `bad_data` as in `Arrangement`. None stands for what is not known.
    Each process reads its part of the patterns (`sharing`). Raises ValueError, or
    FileNotFoundError, in one sentence.
    """
    transform = known.pop("scan_transform", None) or "none"
    if transform not in SCAN_TRANSFORMS:
        raise ValueError(f"no scan_transform is called {transform!r}; known are {', '.join(SCAN_TRANSFORMS)}")
    arrangement = Arrangement.taken_from(known)
    known = checked(known, dict.fromkeys(INSTRUMENT + CXI_PROPERTIES))
    with opened(path) as file:
        cxi = is_cxi(file)
        if not cxi and str(file.attrs.get("format")) != FORMAT and not {"counts", "positions", "views"} & set(file):
            kind = file.attrs.get("format", f"an HDF5 file with {', '.join(file) or 'nothing in it'}")
            raise ValueError(
                f"{path} is neither a native dataset (/counts and /positions) nor a CXI file (/entry_1), but {kind}"
            )
    data = (read_cxi if cxi else read_native)(path, sharing, arrangement, **known)
    if transform != "none":
        middles = [own.mean(0) if data.tilts is None else np.zeros(2) for own in data.positions]
        pairs = zip(data.positions, middles, strict=True)
        data.positions = [_turned(positions, middle, SCAN_TRANSFORMS[transform]) for positions, middle in pairs]
    return data


def _turned(positions: np.ndarray, middle, matrix) -> np.ndarray:
    return (positions - middle) @ np.transpose(matrix) + middle
