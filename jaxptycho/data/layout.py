"""Counts and positions in the layouts that files and callers have them in, as lists over views."""

import numpy as np


class _View:
    """One view of an array over views, read when indexed."""

    def __init__(self, array, view: int):
        self.array, self.view, self.shape, self.dtype = array, view, array.shape[1:], array.dtype

    def __getitem__(self, index):
        return self.array[self.view, index]


class _Raster:
    """The patterns [shot, y, x] of a scan [scan y, scan x, y, x], read when indexed."""

    def __init__(self, array):
        lines, self.columns = array.shape[:2]
        self.array, self.shape, self.dtype = (
            array,
            (lines * self.columns, *array.shape[2:]),
            array.dtype,
        )

    def __getitem__(self, index):
        shots = np.arange(self.shape[0])[index]
        lines, columns = np.divmod(shots, self.columns)
        found = np.empty((len(shots), *self.shape[1:]), self.dtype)
        for line in np.unique(lines):
            found[lines == line] = self.array[int(line), columns[lines == line]]
        return found


def per_view(shots) -> list[np.ndarray]:
    """Shots as a list over views, which those of the one view are not."""
    return (
        [np.asarray(shots)]
        if len(shots) == 0 or np.ndim(shots[0]) == 0
        else [np.asarray(s) for s in shots]
    )


def by_view(array, dimensions, name, one_scan: bool):
    """Arrays of every view; what has an axis too many is one scan, or an array over views."""
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
        f"{name} want {dimensions} dimensions, or {dimensions + 1} with a view axis in front; got shape {tuple(shape)}"
    )


def without_masks(counts: list) -> tuple[list, np.ndarray | None]:
    """Plain arrays for NumPy's masked ones, and the pixels [y, x] that these hide in all patterns."""
    hidden = [c.mask.reshape(-1, *c.shape[-2:]) for c in map(_array, counts) if np.ma.is_masked(c)]
    if not hidden:
        return counts, None
    always = np.any([mask.all(0) for mask in hidden], axis=0)
    if any((mask & ~always).any() for mask in hidden):
        raise ValueError(
            "the masked array of counts hides other pixels from pattern to pattern; one mask [y, x] for "
            "all is required: give it as mask (True where a pixel counts), and leave other shots out"
        )
    return [_plain(c) for c in counts], always


def _array(counts):
    """The array behind a view or a raster."""
    return getattr(counts, "array", counts)


def _plain(counts):
    """Counts without NumPy's mask."""
    if isinstance(counts, (_View, _Raster)):
        counts.array = np.ma.getdata(counts.array)
        return counts
    return np.ma.getdata(counts)
