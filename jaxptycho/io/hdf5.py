"""HDF5 files with clear errors, written completely or not at all."""

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..distributed.gather import ShardedLeaf
from ..physics.types import Numbers
from .atomic_write import atomic_path
from .parallel_gzip import read_chunks

H5 = Any  # an h5py file, group or dataset, which h5py's annotations do not distinguish
COMPRESS_BYTES = 2**16  # smallest size of a compressed array
ZARR = (".zgroup", ".zarray", ".zattrs", "zarr.json")  # at least one is in every Zarr store
FILTER = {"compression": "gzip", "compression_opts": 1, "shuffle": True}


@contextmanager
def open_hdf5(path: str | Path) -> Iterator[H5]:
    """Open a file for reading; any damage is reported as a ValueError of one sentence."""
    path = Path(path)
    if not path.is_file():
        if not path.exists():
            raise FileNotFoundError(f"{path} is not there; check the path")
        what = "a Zarr store" if is_zarr(path) else "a folder"
        raise FileNotFoundError(f"{path} is {what}; an HDF5 file is required")
    if not h5py.is_hdf5(path):
        raise ValueError(
            f"{path} is not an HDF5 file; expected a native dataset, a CXI file or a result"
        )
    try:
        with h5py.File(path) as file:
            yield file
    except (
        OSError,
        KeyError,
        RuntimeError,
    ) as error:  # h5py raises the latter two for a broken link
        if type(error) not in (KeyError, RuntimeError) and isinstance(error, RuntimeError):
            raise  # of a device, not of the file
        raise ValueError(
            f"{path} cannot be read ({_reason(error)}); where it is truncated or damaged, copy or "
            "write it again"
        ) from error


@contextmanager
def create_hdf5(path: str | Path, overwrite: bool = False) -> Iterator[H5]:
    """Open a new file for writing; it is renamed to `path` once it is complete on the disk."""
    try:
        # the format of HDF5 1.8 and later allows attributes longer than 64 kB
        with (
            atomic_path(path, overwrite) as draft,
            h5py.File(draft, "w", libver=("v108", "latest")) as file,
        ):
            yield file
    except FileExistsError:
        raise
    except (OSError, RuntimeError) as error:  # h5py raises RuntimeError if the last write fails
        raise OSError(
            f"{path} could not be written ({_reason(error)}), and nothing was overwritten; make "
            "room or choose another folder"
        ) from error


def is_zarr(path: Path) -> bool:
    """True for the folder of a Zarr store."""
    return any((path / name).exists() for name in ZARR)


class OnDisk:
    """HDF5 dataset whose file is open only while it is being read."""

    def __init__(self, stored: H5):
        self.path = Path(stored.file.filename).resolve()
        self.name = stored.name
        self.shape = stored.shape
        self.dtype = stored.dtype

    def __getitem__(self, index) -> np.ndarray:
        """Rows by a slice or a list of them; of the view `index[0]` if there are several."""
        with open_hdf5(self.path) as file:
            return read_rows(file[self.name], index)


def save_array(
    group: H5, name: str, values: Numbers | ShardedLeaf | str, compress: bool = True
) -> H5:
    """Write `values` as a dataset of `group`, compressed if large; sharded ones piece by piece."""
    given = None if isinstance(values, ShardedLeaf) else np.asarray(values)
    source: Any = values if given is None else given
    shape = source.shape
    kind = source.dtype
    large = compress and math.prod(shape) * kind.itemsize > COMPRESS_BYTES
    stored = group.create_dataset(name, shape, kind, given, **(FILTER if large else {}))
    for place, piece in values.pieces if isinstance(values, ShardedLeaf) else ():
        stored[place] = piece
    return stored


def plain_value(value: Any) -> Any:
    """Attribute as a Python value."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value.item() if isinstance(value, np.generic) else value


def read_rows(stored: H5, index: Any) -> np.ndarray:
    """`stored[index]`, where the last index, a slice or a list, selects rows.

    Chunks that are not decompressed here are read run by run, as HDF5 takes seven times as long for
    a list of compressed patterns.
    """
    *before, rows = index if isinstance(index, tuple) else (index,)
    rows = np.arange(stored.shape[len(before)])[rows]
    if (found := read_chunks(stored, tuple(before), rows)) is not None:
        return found
    runs = np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1)
    return np.concatenate(
        [stored[(*before, slice(run[0], run[-1] + 1) if run.size else run)] for run in runs]
    )


def _reason(error: BaseException) -> str:
    """The system's message inside that of HDF5, else all of it in one line."""
    text = " ".join(str(error).split())
    system = re.search(r"error message = '([^']*)'", text)
    return system[1] if system else text.strip("'\"")
