"""Arrays of patterns in HDF5 files of no further structure: PtyRAD, fold_slice and others.

PtyRAD writes [shot, y, x] or [scan y, scan x, y, x]. fold_slice writes from MATLAB, whose first
axis varies fastest: the dataset `/dp` of y, x, shot is [shot, x, y] in HDF5. A second file
`…_para.hdf5` may give the positions, `/ppY` and `/ppX` in Å.
"""

import re
from pathlib import Path

import numpy as np

from ..hdf5 import open_hdf5
from .frames import stored_frames
from .reading import Reading, scan_values
from .source import Source, arrays_in, find_dataset, require_filters, unwritten


def is_fold_slice(source: Source) -> bool:
    """True for the `…_dp.hdf5` of fold_slice."""
    named = source.path.stem.endswith("_dp") or source.path.stem == "dp"
    return source.file is not None and "dp" in source.file and named


def read_fold_slice(path: Path) -> Reading:
    """Reading of a file `…_dp.hdf5`, with the positions of its `…_para.hdf5`."""
    with open_hdf5(path) as file:
        stored = find_dataset(file, path, "dp")
        require_filters(stored, path)
        axes = (0, 2, 1) if stored.ndim == 3 else (1, 0, 3, 2)
        frames = stored_frames(stored, axes)
        values = scan_values(tuple(stored.shape[axis] for axis in axes), "size of dp")
        fault = unwritten(stored)
    positions = _positions(path.with_name(re.sub(r"_?dp$", "_para", path.stem) + path.suffix))
    if positions is not None and len(positions) != frames.shape[0]:
        raise ValueError(
            f"{path} holds {frames.shape[0]} patterns, and its _para file {len(positions)} "
            "positions; two scans are mixed, give files of the same scan"
        )
    # MATLAB numbers the shots of a scan along y first
    lines = "y" if len(axes) == 3 else "x"
    return Reading(path, "fold_slice HDF5", frames, values, positions, fault=fault, lines=lines)


def _positions(path: Path) -> np.ndarray | None:
    """Positions (y, x) [Å] of a `_para.hdf5`; None where there is none."""
    if not path.is_file():
        return None
    with open_hdf5(path) as file:
        if not {"ppX", "ppY"} <= set(file):
            return None
        return np.stack([np.asarray(file[name][()], float).ravel() for name in ("ppY", "ppX")], -1)


def is_array_file(source: Source) -> bool:
    """True for an HDF5 file with an array of patterns."""
    return source.file is not None and bool(arrays_in(source.file))


def read_array_file(path: Path, dataset: str | None = None) -> Reading:
    """Reading of the array `dataset` of an HDF5 file, by default the only one."""
    with open_hdf5(path) as file:
        stored = find_dataset(file, path, dataset)
        require_filters(stored, path)
        frames = stored_frames(stored)
        values = scan_values(stored.shape)
        kind = f"HDF5 array {stored.name}"
        return Reading(path, kind, frames, values, fault=unwritten(stored))
