"""Patterns of one view, clean and with the zero frequency in the corner, read on demand."""

import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Num


class Look(NamedTuple):
    """Clean patterns on first reading, and the corrections that were made."""

    patterns: Num[np.ndarray, "b y x"]
    negative: int = 0  # counts that were clipped to zero
    too_large: np.ndarray | None = None  # [b], patterns with counts that 32 bits do not hold
    not_finite: np.ndarray | None = None  # [b], patterns with such counts, which are set to zero


class Patterns:
    """Patterns of an array [shot, y, x] in camera layout; with `keep` they are kept in memory."""

    def __init__(self, counts: Any, mask: np.ndarray | None, keep: bool):
        self.counts = counts
        self.mask = mask
        self.dtype = clean_dtype(counts.dtype)
        # occupies memory only where it is filled
        self._kept = np.empty(counts.shape, self.dtype) if keep else None
        self._known = np.zeros(counts.shape[0], bool)

    @property
    def in_memory(self) -> bool:
        """True if patterns are kept once they are read."""
        return self._kept is not None

    def __getitem__(self, shots) -> Num[np.ndarray, "b y x"]:
        shots = np.asarray(shots)
        if self._kept is None:
            return self._read(shots)
        missing = shots[~self._known[shots]]
        if missing.size:
            self._kept[missing] = self._read(missing)
            self._known[missing] = True
        return self._kept[shots]

    def look(self, start: int, stop: int) -> "Look":
        """Patterns `start` to `stop` on first reading."""
        block = np.asarray(self.counts[start:stop])
        seen = block if self.mask is None else block[:, self.mask]
        not_finite = None
        if np.issubdtype(block.dtype, np.floating) and not np.isfinite(seen).all():
            not_finite = np.logical_not(np.isfinite(seen).reshape(len(seen), -1).all(1))
            block = np.where(not_finite[:, None, None], 0, block)
            seen = block if self.mask is None else block[:, self.mask]
        clean = self._cleaned(block)
        if self._kept is not None:
            self._kept[start:stop], self._known[start:stop] = clean, True
        negative = int((seen < 0).sum()) if block.dtype.kind in "if" else 0
        if (largest := self._largest(block.dtype)) is None:
            return Look(clean, negative, not_finite=not_finite)
        return Look(clean, negative, np.any((seen > largest).reshape(len(seen), -1), axis=1))

    def _largest(self, stored: np.dtype) -> int | None:
        """Largest count of a wider `stored` type that is representable; None if all are."""
        wider = self.dtype.kind in "ui" and stored.itemsize > self.dtype.itemsize
        return int(np.iinfo(str(self.dtype)).max) if wider else None

    def _read(self, shots):
        in_order, places = np.unique(shots, return_inverse=True)  # in the order of files
        return self._cleaned(np.asarray(self.counts[in_order]))[places]

    def _cleaned(self, block):
        block = np.where(self.mask, block, 0) if self.mask is not None else block
        if (largest := self._largest(block.dtype)) is not None:
            block = np.minimum(block, largest)
        block = block.astype(self.dtype, copy=False)
        if not np.issubdtype(block.dtype, np.unsignedinteger):
            block = np.maximum(block, 0)
        return np.fft.ifftshift(block, axes=(1, 2))


class Chosen:
    """Selected shots of a view, read and cached by its reader."""

    def __init__(self, patterns: "Patterns | Chosen", shots: np.ndarray):
        self.patterns = patterns
        self.shots = shots
        self.dtype = patterns.dtype

    @property
    def in_memory(self) -> bool:
        """True if patterns are kept once they are read."""
        return self.patterns.in_memory

    def __getitem__(self, shots) -> Num[np.ndarray, "b y x"]:
        return self.patterns[self.shots[shots]]

    def look(self, start: int, stop: int) -> "Look":
        """Patterns as from `Patterns.look`, checked before."""
        return Look(self[np.arange(start, stop)])


class AsSeen:
    """Patterns that were cleaned with `mask`, in camera layout."""

    checked = True  # bad pixels and shots were left out before

    def __init__(self, clean: Chosen, shape: tuple[int, int], mask: np.ndarray | None):
        self.clean = clean
        self.shape = (len(clean.shots), *shape)
        self.dtype = clean.dtype
        self.mask = mask

    def __getitem__(self, index):
        return np.fft.fftshift(self.clean[index], axes=(1, 2))


def read_by(counts: list, mask: np.ndarray | None, limit: int) -> list[Patterns | Chosen]:
    """Readers of the patterns of every view, with a cache if all fit into `limit` bytes."""
    size = sum(math.prod(c.shape) * clean_dtype(c.dtype).itemsize for c in counts)
    return [
        c.clean if isinstance(c, AsSeen) and c.mask is mask else Patterns(c, mask, size <= limit)
        for c in counts
    ]


def clean_dtype(dtype: Any) -> np.dtype:
    """Data type of clean counts: integers of at most 32 bits, otherwise single precision."""
    if dtype.kind == "u":
        return dtype.newbyteorder("=") if dtype.itemsize <= 4 else np.dtype(np.uint32)
    return np.dtype(np.int32 if dtype.kind == "i" else np.float32)
