"""A file, opened to recognise its format, and the arrays of patterns in it."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from ..hdf5 import H5, is_zarr, open_hdf5

HEAD_BYTES = 4096  # of a file, in which signatures are looked for
HDF5_SUFFIXES = (".h5", ".hdf5", ".cxi", ".hspy", ".emd", ".nxs", ".ptyd", ".nx5", ".he5")
PLUGIN_FILTERS = 256  # numbers of HDF5's filters from here on are those of plugins


class Source(NamedTuple):
    """Path of a file, its first bytes, and itself if it is HDF5."""

    path: Path
    head: bytes = b""
    file: H5 | None = None

    @property
    def suffix(self) -> str:
        """Ending of the name, in lower case."""
        return self.path.suffix.lower()


@contextmanager
def opened(path: str | Path) -> Iterator[Source]:
    """Open a file to recognise its format; also the folder of a Zarr store.

    Raises FileNotFoundError for other folders and missing files, ValueError for damaged HDF5.
    """
    path = Path(path)
    if path.is_dir() and is_zarr(path):
        yield Source(path)
    elif not path.is_file() or h5py.is_hdf5(path) or path.suffix.lower() in HDF5_SUFFIXES:
        with open_hdf5(path) as file:
            yield Source(path, b"", file)
    else:
        with open(path, "rb") as plain:
            head = plain.read(HEAD_BYTES)
        if not head:
            raise ValueError(f"{path} is empty; copy it again")
        yield Source(path, head)


def find_dataset(file: H5, path: Path, name: str | None = None) -> H5:
    """Return the dataset called `name`, or the only one of patterns in an HDF5 file.

    Raises ValueError where there is none, or several.
    """
    if name is not None:
        stored = file.get(name)
        if not isinstance(stored, h5py.Dataset) or not _holds_patterns(stored):
            raise ValueError(
                f"{path} has no array of patterns called {name} (three or four axes of real "
                f"numbers); {_known_arrays(file)}"
            )
        return stored
    found = arrays_in(file)
    if len(found) == 1:
        return found[0]
    if not found:
        raise ValueError(
            f"{path} holds no array of patterns (three or four axes of real numbers); "
            f"{_known_arrays(file)}"
        )
    listed = ", ".join(f"{stored.name} {list(stored.shape)}" for stored in found[:6])
    raise ValueError(
        f"{path} holds {len(found)} arrays that may be patterns ({listed}); name one: "
        f"dataset={found[0].name!r}, in a job data.dataset"
    )


def arrays_in(group: H5) -> list[H5]:
    """Datasets of patterns in a group and in its groups, without those behind links."""
    found = []
    for stored in members(group):
        if isinstance(stored, h5py.Group):
            found += arrays_in(stored)
        elif isinstance(stored, h5py.Dataset) and _holds_patterns(stored):
            found.append(stored)
    return found


def members(group: H5) -> Iterator[H5]:
    """Datasets and groups in a group, without those behind links, which may lead in a circle."""
    for name in group:
        if isinstance(group.get(name, getlink=True), h5py.HardLink):
            yield group[name]


def unwritten(stored: H5) -> str | None:
    """Fault of a dataset that was not written to its end; None for a complete one."""
    if stored.is_virtual or stored.external:
        return None
    if stored.chunks is None:
        empty = stored.id.get_storage_size() == 0
        return f"announces patterns in {stored.name} and holds none" if empty else None
    sizes = zip(stored.shape, stored.chunks, strict=True)
    chunks = math.prod(-(-size // chunk) for size, chunk in sizes)
    written = stored.id.get_num_chunks()
    if written == chunks:
        return None
    return f"is half written: {written} of the {chunks} chunks of {stored.name} are there"


def require_filters(stored: H5, path: Path) -> None:
    """Make the decompression of a dataset available.

    Raises ValueError where that requires a package that is missing.
    """
    made = stored.id.get_create_plist()
    numbers = [made.get_filter(i)[0] for i in range(made.get_nfilters())]
    if all(n < PLUGIN_FILTERS or h5py.h5z.filter_avail(n) for n in numbers):
        return
    try:
        import hdf5plugin  # noqa: F401
    except ImportError:
        raise ValueError(
            f"the patterns of {path} are compressed by filter {max(numbers)} of HDF5 (bitshuffle, "
            "LZ4 …), which requires a package: pip install hdf5plugin"
        ) from None


def string_of(value: Any) -> str:
    """Text of an attribute or a scalar dataset, without the padding."""
    value = value[()] if isinstance(value, h5py.Dataset) else value
    value = value.reshape(-1)[0] if isinstance(value, np.ndarray) and value.size == 1 else value
    return value.decode(errors="replace").strip("\0 ") if isinstance(value, bytes) else str(value)


def scalar_of(value: Any) -> float | None:
    """Number of an attribute or a scalar dataset; None for anything else."""
    value = value[()] if isinstance(value, h5py.Dataset) else value
    array = np.asarray(value) if value is not None else np.asarray("")
    return float(array.reshape(-1)[0]) if array.size == 1 and array.dtype.kind in "uif" else None


def _holds_patterns(stored: H5) -> bool:
    return stored.ndim in (3, 4) and stored.dtype.kind in "uif" and min(stored.shape) > 0


def _known_arrays(file: H5) -> str:
    names: list[str] = []
    file.visititems(
        lambda name, item: (
            names.append(f"/{name} {list(item.shape or [])}")
            if isinstance(item, h5py.Dataset) and len(names) < 6
            else None
        )
    )
    return f"it holds {', '.join(names)}" if names else "it holds no datasets"
