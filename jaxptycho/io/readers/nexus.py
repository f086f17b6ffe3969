"""NeXus files: the default NXdata, or the only one that holds patterns (NXcxi is read as CXI).

`signal` of an NXdata names its array, `axes` the coordinates of its axes with their `units`; the
`interpretation` of patterns is "image".
"""

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..hdf5 import H5, open_hdf5
from .frames import stored_frames
from .reading import Reading, scan_values, steps_of
from .source import (
    Source,
    find_dataset,
    members,
    require_filters,
    scalar_of,
    string_of,
    unwritten,
)


def is_nexus(source: Source) -> bool:
    """True for a file with a group that NeXus calls an entry."""
    file = source.file
    return file is not None and any(_class(file.get(name)) == "NXentry" for name in file)


def read_nexus(path: Path, dataset: str | None = None) -> Reading:
    """Reading of the array `dataset`, by default that of the default NXdata, or the only one."""
    with open_hdf5(path) as file:
        plots = [] if dataset is not None else _plots(file)
        default = _default(file)
        chosen = [plot for plot in plots if plot.name == default] or plots
        stored = _signal(chosen[0]) if len(chosen) == 1 else find_dataset(file, path, dataset)
        require_filters(stored, path)
        parent = stored.parent
        kind = string_of(stored.attrs.get("interpretation", parent.attrs.get("interpretation", "")))
        if dataset is None and kind == "spectrum":
            raise ValueError(
                f"{path} holds spectra {list(stored.shape)} in {stored.name}, and patterns are "
                f"required; where these are patterns, name them: dataset={stored.name!r}"
            )
        values = scan_values(stored.shape) | steps_of(_steps(stored))
        frames = stored_frames(stored)
        return Reading(path, "NeXus", frames, values, fault=unwritten(stored))


def _class(group: Any) -> str:
    return string_of(group.attrs.get("NX_class", "")) if isinstance(group, h5py.Group) else ""


def _plots(group: H5) -> list[H5]:
    """Groups NXdata with a signal of patterns, without those behind links."""
    found = []
    for inner in members(group):
        if _class(inner) == "NXdata" and _signal(inner) is not None:
            found.append(inner)
        elif isinstance(inner, h5py.Group):
            found += _plots(inner)
    return found


def _signal(plot: H5) -> Any:
    """Array that an NXdata shows, if it has the axes of patterns."""
    stored = plot.get(string_of(plot.attrs.get("signal", "data")))
    fits = isinstance(stored, h5py.Dataset) and stored.ndim in (3, 4) and stored.dtype.kind in "uif"
    return stored if fits else None


def _default(file: H5) -> str:
    """Name of the NXdata that the attributes `default` lead to."""
    group = file
    while isinstance(group, h5py.Group) and "default" in group.attrs:
        group = group.get(string_of(group.attrs["default"]))
    return str(group.name) if isinstance(group, h5py.Group) else ""


def _steps(stored: H5) -> list[tuple[float | None, str]]:
    """Step and unit of every axis, as far as its coordinates are even."""
    names = np.atleast_1d(stored.parent.attrs.get("axes", np.array([], "S1")))
    names = [string_of(name) for name in names] + ["."] * stored.ndim
    return [
        _step(stored.parent.get(name), stored.shape[n])
        for n, name in enumerate(names[: stored.ndim])
    ]


def _step(coordinates: Any, size: int) -> tuple[float | None, str]:
    if not isinstance(coordinates, h5py.Dataset) or coordinates.shape != (size,) or size < 2:
        return None, ""
    values = np.asarray(coordinates[()], float)
    steps = np.diff(values)
    even = np.allclose(steps, steps[0], rtol=1e-3)
    return (abs(scalar_of(steps[0]) or 0.0) if even else None), string_of(
        coordinates.attrs.get("units", "")
    )
