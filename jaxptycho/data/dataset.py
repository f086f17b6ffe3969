"""Measured counts, checked and clean, read when they are wanted."""

import warnings
from collections.abc import Sequence
from copy import copy
from dataclasses import InitVar, dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Num

from ..physics.grids import Grid
from .batch import Rows
from .numbers import numbers
from .patterns import AsSeen, Chosen, read_by
from .sharing import ALONE, Sharing

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

    Building reads every pattern once, of many processes each its own part (`sharing`): negative counts are clipped
    to zero and pixels outside the mask zeroed, with a warning that says how many were clipped. Raises ValueError for
    misshaped arrays, NaN inside the mask, empty patterns, a mask that hides everything.
    """

    counts: Any
    positions: Any
    grid: Grid
    mask: np.ndarray | None = None
    tilts: np.ndarray | None = None  # rad, one for each view
    probe_guess: np.ndarray | None = None  # [y, x] or [mode, y, x], centre at [N//2, N//2]
    about: dict[str, Any] = field(default_factory=dict)
    sharing: InitVar[Sharing] = ALONE

    def __post_init__(self, sharing: Sharing):
        self.counts = _by_view(self.counts, 3, "counts")
        self.positions = [numbers(p[:], "positions", float) for p in _by_view(self.positions, 2, "positions")]
        self._first: np.ndarray | None = None
        self._check_scan()
        self._check_extras()
        self._clean = read_by(self.counts, self.mask, IN_MEMORY_BYTES)
        self._look(sharing)

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
        return np.fft.fftshift(np.sum(self._total, 0)) / sum(self.n_shots)

    @property
    def kinds(self) -> list[np.dtype]:
        """The types of the patterns of every view."""
        return [patterns.dtype for patterns in self._clean]

    def patterns(self, view: int, shots) -> Num[np.ndarray, "b y x"]:
        """Counts of some shots as losses want them: clean, zero frequency in the corner."""
        return self._clean[view][shots]

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
        other = copy(self)
        for name in ("counts", "positions", "_clean", "_dose", "_total"):
            setattr(other, name, [getattr(self, name)[number]])
        other.tilts = None if self.tilts is None else np.asarray(self.tilts)[[number]]
        other._first, other.about = None, dict(self.about)
        return other

    def subset(self, shots: Sequence | np.ndarray, sharing: Sharing = ALONE) -> "Dataset":
        """The same measurement with only `shots` (of the one view, or a list over views)."""
        chosen = [np.sort(s) for s in per_view(shots)]
        some = [Chosen(clean, s) for clean, s in zip(self._clean, chosen, strict=True)]
        counts = [AsSeen(clean, self.grid.shape, self.mask) for clean in some]
        positions = [p[s] for p, s in zip(self.positions, chosen, strict=True)]
        return Dataset(counts, positions, self.grid, self.mask, self.tilts, self.probe_guess, dict(self.about), sharing)

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
        if self.tilts is not None:
            self.tilts = numbers(self.tilts, "the tilts", float)
        if self.tilts is not None and (np.shape(self.tilts) != (self.n_views,) or not np.isfinite(self.tilts).all()):
            raise ValueError(f"the tilts are {self.tilts}; wanted a finite one for each of {self.n_views} views")
        if self.mask is not None:
            self.mask = numbers(self.mask, "the mask", bool)
            if self.mask.shape != self.grid.shape:
                raise ValueError(f"the mask is {self.mask.shape} pixels, the patterns are {self.grid.shape}")
            if not self.mask.any():
                raise ValueError("the mask hides every pixel; it is True where a pixel counts (invert it?)")
        if self.probe_guess is not None:
            probe = self.probe_guess = numbers(self.probe_guess, "the guess of the probe", complex)
            if (
                probe.ndim not in (2, 3)
                or probe.shape[-2:] != self.grid.shape
                or not np.isfinite(probe).all()
                or not probe.any()
            ):
                raise ValueError(
                    f"the guess of the probe has shape {probe.shape}; wanted finite waves [y, x] or [mode, y, x] "
                    f"of {self.grid.shape} pixels, not zero everywhere"
                )

    def _where(self, view: int) -> str:
        return f" of view {view}" if self.n_views > 1 else ""

    def _look(self, sharing: Sharing):
        """Reads this process's part of the patterns, for what all say together."""
        self._dose = [np.zeros(n) for n in self.n_shots]
        self._total = [np.zeros(self.grid.shape) for _ in self.n_shots]
        clipped, wrong = 0, None
        try:
            for view, clean in enumerate(self._clean):
                first, end = sharing.own(self.n_shots[view])
                for start in range(first, end, BLOCK):
                    stop = min(start + BLOCK, end)
                    block, negative = clean.look(start, stop, self._where(view))
                    clipped += negative
                    self._dose[view][start:stop] = block.sum((1, 2), dtype=float)
                    self._total[view] += block.sum(0, dtype=float)
        except ValueError as error:
            wrong = str(error)
        if wrong := sharing.said(wrong):
            raise ValueError(wrong)
        found = sharing.summed(np.concatenate([[clipped], *self._dose, *(t.ravel() for t in self._total)]))
        clipped, found = int(found[0]), found[1:]
        doses, totals = np.split(found, [sum(self.n_shots)])
        self._dose = np.split(doses, np.cumsum(self.n_shots)[:-1])
        self._total = list(totals.reshape(-1, *self.grid.shape))
        for view, dose in enumerate(self._dose):
            empty = np.flatnonzero(dose == 0)
            if len(empty):
                raise ValueError(
                    f"{len(empty)} of {len(dose)} patterns{self._where(view)} hold no counts (first: shot {empty[0]}); "
                    "drop them, or check the mask and the dark subtraction"
                )
        if clipped:
            warnings.warn(
                f"{clipped} negative counts, as dark subtraction leaves them, were clipped to zero", stacklevel=4
            )


class _View:
    """One view of an array over views, read when indexed."""

    def __init__(self, array, view: int):
        self.array, self.view, self.shape, self.dtype = array, view, array.shape[1:], array.dtype

    def __getitem__(self, index):
        return self.array[self.view, index]


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
