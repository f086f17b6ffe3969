"""Measured counts, checked and clean, read when they are wanted."""

import math
import warnings
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Num

from ..physics.grids import Grid
from .batch import Rows

BLOCK = 64  # patterns read at once
IN_MEMORY_BYTES = 4 * 2**30  # datasets up to this size are kept in memory, as integers


@dataclass(eq=False)
class Dataset:
    """Counts, where they were taken, and what is known of the instrument.

    `counts` are `[shot, y, x]`, `[view, shot, y, x]` or a list over views, with the zero
    frequency in the middle as a camera shows it; anything sliceable will do (h5py datasets and
    memory maps are read block by block). `positions` `[…, 2]` are (y, x) of the probe's centre
    in Å. `mask` is True where a pixel counts. `about` holds what else is known, under the
    names of the native format (`semiangle_mrad`, `defocus_angstrom` …).

    Building reads every pattern once: negative counts are clipped to zero and pixels outside
    the mask zeroed, with a warning that says how many were clipped. Raises ValueError for
    misshaped arrays, NaN inside the mask, empty patterns, a mask that hides everything.
    """

    counts: Any
    positions: Any
    grid: Grid
    mask: np.ndarray | None = None
    tilts: np.ndarray | None = None  # rad, one for each view
    probe_guess: np.ndarray | None = None  # [y, x] or [mode, y, x], centre at [N//2, N//2]
    about: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        self.counts = _by_view(self.counts, 3, "counts")
        self.positions = [np.asarray(p[:], float) for p in _by_view(self.positions, 2, "positions")]
        self._first: np.ndarray | None = None
        self._check_scan()
        self._check_extras()
        self._read_once()

    @property
    def n_views(self) -> int:
        return len(self.counts)

    @property
    def n_shots(self) -> list[int]:
        """Number of shots of every view."""
        return [len(p) for p in self.positions]

    def dose(self, view: int = 0) -> Float[np.ndarray, " shot"]:
        """Quanta counted in every shot."""
        return self._dose[view]

    def mean_pattern(self) -> Float[np.ndarray, "y x"]:
        """Mean counts over all shots and views, zero frequency in the middle."""
        return self._mean

    def patterns(self, view: int, shots) -> Num[np.ndarray, "b y x"]:
        """Counts of some shots as losses want them: clean, zero frequency in the corner."""
        stored = self._clean[view]
        if stored is not None:
            return stored[shots]
        in_order, places = np.unique(shots, return_inverse=True)  # as files are read
        return self._cleaned(np.asarray(self.counts[view][in_order]))[places]

    def counts_of(self, view: int, shots) -> Num[np.ndarray, "b y x"] | Rows:
        """What a batch carries of some shots: their patterns, or where these stand in a table (`indexed`)."""
        return self.patterns(view, shots) if self._first is None else Rows((self._first[view] + shots).astype(np.int32))

    def indexed(self) -> "Dataset":
        """The same measurement, whose batches say where counts stand in a table of the patterns of all views."""
        other = copy(self)
        other._first = np.cumsum([0, *self.n_shots])
        return other

    def view(self, number: int) -> "Dataset":
        """The measurement of one view alone."""
        counts, tilts = _Some(self, number, np.arange(self.n_shots[number])), self.tilts
        tilts = None if tilts is None else np.asarray(tilts)[[number]]
        return Dataset(
            [counts], [self.positions[number]], self.grid, self.mask, tilts, self.probe_guess, dict(self.about)
        )

    def subset(self, shots: Sequence | np.ndarray) -> "Dataset":
        """The same measurement with only `shots` (of the one view, or a list over views)."""
        chosen = [np.sort(s) for s in per_view(shots)]
        counts = [_Some(self, view, s) for view, s in enumerate(chosen)]
        positions = [p[s] for p, s in zip(self.positions, chosen, strict=True)]
        return Dataset(counts, positions, self.grid, self.mask, self.tilts, self.probe_guess, dict(self.about))

    def _check_scan(self):
        if len(self.counts) != len(self.positions):
            raise ValueError(f"counts of {len(self.counts)} views came with positions of {len(self.positions)}")
        for view, (counts, positions) in enumerate(zip(self.counts, self.positions, strict=True)):
            where = self._where(view)
            if len(counts.shape) != 3 or counts.shape[0] == 0 or counts.dtype.kind not in "buif":
                raise ValueError(
                    f"the counts{where} have shape {tuple(counts.shape)} and type {counts.dtype}; "
                    "wanted real numbers [shot, y, x] of at least one shot"
                )
            if tuple(counts.shape[1:]) != self.grid.shape:
                raise ValueError(f"patterns{where} are {tuple(counts.shape[1:])} pixels, the grid is {self.grid.shape}")
            if positions.shape != (counts.shape[0], 2):
                raise ValueError(
                    f"{counts.shape[0]} patterns{where} want positions of shape ({counts.shape[0]}, 2) in Å; "
                    f"got {positions.shape}"
                )
            if not np.isfinite(positions).all():
                bad = int(np.flatnonzero(~np.isfinite(positions).all(1))[0])
                raise ValueError(
                    f"the position of shot {bad}{where} is {positions[bad]}; every shot wants a finite one"
                )

    def _check_extras(self):
        if self.tilts is not None and (np.shape(self.tilts) != (self.n_views,) or not np.isfinite(self.tilts).all()):
            raise ValueError(f"the tilts are {self.tilts}; wanted a finite one for each of {self.n_views} views")
        if self.mask is not None:
            self.mask = np.asarray(self.mask, bool)
            if self.mask.shape != self.grid.shape:
                raise ValueError(f"the mask is {self.mask.shape} pixels, the patterns are {self.grid.shape}")
            if not self.mask.any():
                raise ValueError("the mask hides every pixel; it is True where a pixel counts (invert it?)")
        if self.probe_guess is not None:
            probe = self.probe_guess = np.asarray(self.probe_guess)
            if probe.ndim not in (2, 3) or probe.shape[-2:] != self.grid.shape or not np.isfinite(probe).all():
                raise ValueError(
                    f"the guess of the probe has shape {probe.shape}; wanted finite waves [y, x] or [mode, y, x] "
                    f"of {self.grid.shape} pixels"
                )

    def _where(self, view: int) -> str:
        return f" of view {view}" if self.n_views > 1 else ""

    def _read_once(self):
        size = sum(math.prod(c.shape) * _clean_dtype(c.dtype).itemsize for c in self.counts)
        keep = size <= IN_MEMORY_BYTES
        self._dose, self._clean, total, clipped = [], [], np.zeros(self.grid.shape), 0
        for view, counts in enumerate(self.counts):
            stored = np.empty(counts.shape, _clean_dtype(counts.dtype)) if keep else None
            doses = np.empty(counts.shape[0])
            for start in range(0, counts.shape[0], BLOCK):
                block = np.asarray(counts[start : start + BLOCK])
                clipped += self._check_values(block, view, start)
                clean = self._cleaned(block)
                doses[start : start + BLOCK] = clean.sum((1, 2), dtype=float)
                total += clean.sum(0, dtype=float)
                if stored is not None:
                    stored[start : start + BLOCK] = clean
            if not doses.all():
                empty = np.flatnonzero(doses == 0)
                raise ValueError(
                    f"{len(empty)} of {len(doses)} patterns{self._where(view)} hold no counts (first: shot {empty[0]}); "
                    "drop them, or check the mask and the dark subtraction"
                )
            self._dose.append(doses)
            self._clean.append(stored)
        if clipped:
            warnings.warn(
                f"{clipped} negative counts, as dark subtraction leaves them, were clipped to zero", stacklevel=4
            )
        self._mean = np.fft.fftshift(total) / sum(self.n_shots)

    def _check_values(self, block, view, start) -> int:
        seen = block if self.mask is None else block[:, self.mask]
        if np.issubdtype(block.dtype, np.floating) and not np.isfinite(seen).all():
            shot = start + int(np.flatnonzero(~np.isfinite(seen).reshape(len(seen), -1).all(1))[0])
            raise ValueError(
                f"counts of shot {shot}{self._where(view)} are not finite inside the mask; "
                "mask these pixels or mend the file"
            )
        return int((seen < 0).sum()) if block.dtype.kind in "if" else 0

    def _cleaned(self, block):
        block = np.where(self.mask, block, 0) if self.mask is not None else block
        block = block.astype(_clean_dtype(block.dtype), copy=False)
        if not np.issubdtype(block.dtype, np.unsignedinteger):
            block = np.maximum(block, 0)
        return np.fft.ifftshift(block, axes=(1, 2))


class _View:
    """One view of an array over views, read when indexed."""

    def __init__(self, array, view: int):
        self.array, self.view, self.shape, self.dtype = array, view, array.shape[1:], array.dtype

    def __getitem__(self, index):
        return self.array[self.view, index]


class _Some:
    """Some shots of one view, clean and as a camera shows them, read when indexed."""

    def __init__(self, data: Dataset, view: int, shots: np.ndarray):
        self.data, self.view, self.shots = data, view, shots
        self.shape, self.dtype = (len(shots), *data.grid.shape), _clean_dtype(data.counts[view].dtype)

    def __getitem__(self, index):
        return np.fft.fftshift(self.data.patterns(self.view, self.shots[index]), axes=(1, 2))


def _clean_dtype(dtype):
    """Integers that a device holds stay, of either sign; everything else is in single precision."""
    if dtype.kind == "u" and dtype.itemsize <= 4:
        return dtype.newbyteorder("=")
    return np.dtype(np.int32 if dtype.kind == "i" and dtype.itemsize <= 4 else np.float32)


def per_view(shots) -> list[np.ndarray]:
    """Shots as a list over views, which those of the one view are not."""
    return [np.asarray(shots)] if len(shots) == 0 or np.ndim(shots[0]) == 0 else [np.asarray(s) for s in shots]


def _by_view(array, dimensions, name):
    if isinstance(array, (list, tuple)):
        return [a if hasattr(a, "shape") else np.asarray(a) for a in array]
    shape = np.shape(array)
    if len(shape) == dimensions:
        return [array]
    if len(shape) == dimensions + 1:
        return [_View(array, view) for view in range(shape[0])]
    raise ValueError(
        f"{name} want {dimensions} dimensions, or {dimensions + 1} with a view axis in front; got shape {tuple(shape)}"
    )
