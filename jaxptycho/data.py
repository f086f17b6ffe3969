"""Measured counts and the batches drawn from them: the host's side of the inverse problem."""

import math
import queue
import threading
import warnings
from collections.abc import Generator, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float, Int, Num

from .order import ORDERS, even_size
from .physics.grids import Grid

BLOCK = 64  # patterns read at once
TOGETHER = 64  # shots of small batches that one call works off
IN_MEMORY_BYTES = 4 * 2**30  # datasets up to this size are kept in memory, as integers


class Rows(eqx.Module):
    """Where the counts of shots stand in a table of patterns that the device keeps."""

    index: Int[Array | np.ndarray, "*step b"]
    table: Num[Array, "n y x"] | None = None


class Batch(eqx.Module):
    """Some shots of one view. A short last batch is padded with `weight` 0.

    Several batches of one shape, stacked along a first axis, are also one (`stacked`).
    """

    view: int | np.integer | Int[Array | np.ndarray, "*step"]
    shots: Int[Array | np.ndarray, "*step b"]
    counts: Num[Array | np.ndarray, "*step b y x"] | Rows  # zero frequency in the corner
    weight: Float[Array | np.ndarray, "*step b"]


def at_hand(batch: Batch) -> Batch:
    """The batch with its counts, where it only says which rows of a table they are."""
    if not isinstance(batch.counts, Rows):
        return batch
    counts = batch.counts.table.at[batch.counts.index].get(mode="promise_in_bounds")  # pyright: ignore[reportOptionalMemberAccess]
    return Batch(batch.view, batch.shots, counts, batch.weight)


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
        chosen = [np.sort(s) for s in _per_view(shots)]
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


def split(data: Dataset, hold_out: float, seed: int = 0) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Shots of every view to learn from, and a random fraction `hold_out` to validate with."""
    if not 0 <= hold_out < 1:
        raise ValueError(f"hold_out = {hold_out}; wanted a fraction from 0 to less than 1, so that shots are left")
    learn, held = [], []
    for view, n in enumerate(data.n_shots):
        order = np.random.default_rng([seed, view, 1]).permutation(n)
        n_held = min(round(hold_out * n), n - 1)
        held.append(np.sort(order[:n_held]))
        learn.append(np.sort(order[n_held:]))
    return learn, held


def batches(
    data: Dataset,
    size: int,
    epochs: int = 1,
    *,
    order: str = "random",
    seed: int = 0,
    first_epoch: int = 0,
    shots=None,
    part: tuple[int, int] = (0, 1),
) -> Iterator[Batch]:
    """Every shot (or `shots`, of the one view or a list over views) once an epoch, in batches of `size`.

    `order` is "random", "compact" (neighbours together) or "sparse" (each batch spread over
    the scan); anew each epoch, and decided by `seed` and the number of the epoch alone. `part` (i, n) reads the
    i-th of n equal parts of every batch and nothing else.
    """
    if order not in ORDERS:
        raise ValueError(f"unknown order of batches {order!r}; known are {', '.join(ORDERS)}")
    if size < 1:
        raise ValueError(f"batches of {size} shots; wanted at least 1")
    shots = [np.arange(n) for n in data.n_shots] if shots is None else _per_view(shots)
    largest = max(even_size(len(mine), size) for mine in shots)
    for epoch in range(first_epoch, first_epoch + epochs):
        rng = np.random.default_rng([seed, epoch, 0])
        groups = [
            (view, mine[group])
            for view, mine in enumerate(shots)
            for group in ORDERS[order](data.positions[view][mine], size, rng)
        ]
        for i in rng.permutation(len(groups)):
            yield make_batch(data, *groups[i], size=largest, part=part)


def make_batch(data: Dataset, view: int, shots, size: int | None = None, part: tuple[int, int] = (0, 1)) -> Batch:
    """One batch of the given shots, padded to `size` and to equal parts; the i-th of n of these for `part` (i, n)."""
    shots, (i, n) = np.asarray(shots), part
    own = math.ceil((size or len(shots)) / n)
    padding = own * n - len(shots)
    weight = np.concatenate([np.ones(len(shots), np.float32), np.zeros(padding, np.float32)])
    shots = np.concatenate([shots, np.repeat(shots[:1], padding)]).astype(np.int32)
    weight, shots = weight[i * own : (i + 1) * own], shots[i * own : (i + 1) * own]
    return Batch(np.int32(view), shots, data.counts_of(view, shots), weight)


def stacked(batches: Iterable[Batch], shots: int = TOGETHER) -> Iterator[Batch]:
    """The same batches, small ones stacked `[step, shot, …]` up to `shots` shots: one call works off a stack.

    What does not fill a stack comes singly, so that a step meets two shapes at most.
    """
    waiting: list[Batch] = []
    for batch in batches:
        waiting.append(batch)
        count = shots // len(batch.shots)
        if len(waiting) < count:
            continue
        if count > 1:
            yield jax.tree.map(lambda *arrays: np.stack(arrays), *waiting)
        else:
            yield from waiting
        waiting = []
    yield from waiting


def prefetch(items: Iterable, depth: int = 2) -> Generator:
    """The same items, made ahead by a thread while the device computes."""
    ready: queue.Queue = queue.Queue(depth)
    done, stop = object(), threading.Event()

    def put(item) -> bool:
        while not stop.is_set():
            try:
                ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work():
        try:
            for item in items:
                if not put((item, None)):
                    return
            put((done, None))
        except BaseException as error:  # handed to the reader, who raises it
            put((done, error))

    threading.Thread(target=work, daemon=True).start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is done:
                return
            yield item
    finally:
        stop.set()


def _clean_dtype(dtype):
    """Integers that a device holds stay, of either sign; everything else is in single precision."""
    if dtype.kind == "u" and dtype.itemsize <= 4:
        return dtype.newbyteorder("=")
    return np.dtype(np.int32 if dtype.kind == "i" and dtype.itemsize <= 4 else np.float32)


def _per_view(shots) -> list[np.ndarray]:
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
