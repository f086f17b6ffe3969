"""MATLAB files of version 7.3, which are HDF5; MATLAB's first axis varies fastest.

An array of y, x, scan y, scan x in MATLAB is [scan x, scan y, x, y] in HDF5. Where only the first
two axes of MATLAB can be those of the scan, as patterns are square, they are taken as such.
"""

from pathlib import Path

from ..hdf5 import open_hdf5
from .frames import stored_frames
from .reading import Reading, scan_values
from .source import Source, find_dataset, require_filters, unwritten

SIGNATURE = b"MATLAB 7.3"


def is_matlab(source: Source) -> bool:
    """True for a file that ends in `.mat`."""
    return source.suffix == ".mat"


def read_matlab(path: Path, dataset: str | None = None) -> Reading:
    """Reading of the array `dataset` of a file, by default the only one."""
    with open(path, "rb") as file:
        head = file.read(128)
    if head.startswith(b"MATLAB 5"):
        raise ValueError(
            f"{path} is of an older version of MATLAB, which is read as one array in memory; save "
            "it again with save(name, '-v7.3')"
        )
    with open_hdf5(path) as file:
        stored = find_dataset(file, path, dataset)
        require_filters(stored, path)
        axes = _axes(stored.shape)
        frames = stored_frames(stored, axes)
        shape = tuple(stored.shape[axis] for axis in axes)
        fault = unwritten(stored)
        source = f"size of {stored.name.strip('/')}"
    values = scan_values(shape, source)
    names = ("shot", "y", "x") if len(axes) == 3 else ("scan y", "scan x", "y", "x")
    order = ", ".join(name for _, name in sorted(zip(axes, names, strict=True))[::-1])
    kind = f"MATLAB 7.3, axes {order}"
    return Reading(path, kind, frames, values, fault=fault, lines="y" if len(axes) == 3 else "x")


def _axes(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Axes in HDF5 of (shot, y, x) or (scan y, scan x, y, x)."""
    if len(shape) == 3:
        return (2, 1, 0) if shape[1] != shape[2] and shape[0] == shape[1] else (0, 2, 1)
    scan_last = shape[2] == shape[3] or shape[0] != shape[1]
    return (1, 0, 3, 2) if scan_last else (3, 2, 1, 0)
