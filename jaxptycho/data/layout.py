"""Conversion of counts and positions from the layouts of files and callers to lists over views."""

from typing import Any

import numpy as np


class _View:
    """One view of an array over views, read when indexed."""

    def __init__(self, array, view: int):
        self.array = array
        self.view = view
        self.shape = array.shape[1:]
        self.dtype = array.dtype

    def __getitem__(self, index):
        return self.array[self.view, index]


class _Raster:
    """The patterns [shot, y, x] of a scan [scan y, scan x, y, x], read when indexed."""

    def __init__(self, array):
        lines, self.columns = array.shape[:2]
        self.array = array
        self.shape = (lines * self.columns, *array.shape[2:])
        self.dtype = array.dtype

    def __getitem__(self, index):
        shots = np.arange(self.shape[0])[index]
        lines, columns = np.divmod(shots, self.columns)
        found = np.empty((len(shots), *self.shape[1:]), self.dtype)
        for line in np.unique(lines):
            found[lines == line] = self.array[int(line), columns[lines == line]]
        return found


class SomeRows:
    """Some rows of an array, read when indexed."""

    def __init__(self, array, rows: np.ndarray):
        self.array = array
        self.rows = rows

    def __getitem__(self, index):
        return self.array[self.rows[index]]


def per_view(shots: Any) -> list[np.ndarray]:
    """Shots as a list over views, also those of a single view."""
    return (
        [np.asarray(shots)]
        if len(shots) == 0 or np.ndim(shots[0]) == 0
        else [np.asarray(s) for s in shots]
    )


def by_view(array: Any, dimensions: int, name: str, one_scan: bool) -> list:
    """Arrays of every view; an additional axis is that of a scan or of the views."""
    if isinstance(array, (list, tuple)):
        return [a if hasattr(a, "shape") else np.asarray(a) for a in array]
    shape = np.shape(array)
    if len(shape) == dimensions:
        return [array]
    if len(shape) == dimensions + 1 and one_scan:
        return [_Raster(array) if dimensions == 3 else np.reshape(array[:], (-1, shape[-1]))]
    if len(shape) == dimensions + 1:
        return [_View(array, view) for view in range(shape[0])]
    raise ValueError(
        f"{name} require {dimensions} dimensions, or {dimensions + 1} with a view axis in front; "
        f"got shape {tuple(shape)}"
    )


def without_masks(counts: list) -> tuple[list, np.ndarray | None]:
    """Plain arrays of NumPy's masked ones, and the pixels [y, x] masked in all patterns."""
    hidden = [c.mask.reshape(-1, *c.shape[-2:]) for c in map(_array, counts) if np.ma.is_masked(c)]
    if not hidden:
        return counts, None
    always = np.any([mask.all(0) for mask in hidden], axis=0)
    if any((mask & ~always).any() for mask in hidden):
        raise ValueError(
            "the masked array of counts hides other pixels from pattern to pattern; one mask [y, "
            "x] for all is required: give it as mask (True where a pixel counts), and leave other "
            "shots out"
        )
    return [_plain(c) for c in counts], always


def _array(counts):
    """Underlying array of a view or a raster."""
    return getattr(counts, "array", counts)


def _plain(counts):
    """Counts without NumPy's mask."""
    if isinstance(counts, (_View, _Raster)):
        counts.array = np.ma.getdata(counts.array)
        return counts
    return np.ma.getdata(counts)
