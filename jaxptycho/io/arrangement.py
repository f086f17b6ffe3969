"""Conversion of a file's counts and positions to the conventions of a `Dataset`."""

from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np

from ..data import Dataset
from ..physics.grids import Grid

# Å for each unit of a file's positions; pixels are those of the object
POSITION_UNITS = {"angstrom": 1.0, "nm": 10.0, "um": 1e4, "m": 1e10, "pixel": None}


@dataclass(frozen=True)
class Arrangement:
    """Conventions of a file that differ from those of a `Dataset`, or that it does not state.

    `position_unit` is one of `POSITION_UNITS`, `zero_frequency` its position in the patterns;
    counts are divided by `counts_per_electron`; `bad_data` as in `Dataset`.
    """

    position_unit: str = "angstrom"
    zero_frequency: Literal["middle", "corner"] = "middle"
    counts_per_electron: float = 1.0
    bad_data: Literal["leave_out", "keep"] = "leave_out"

    def __post_init__(self):
        if self.position_unit not in POSITION_UNITS:
            raise ValueError(
                f"no position_unit is called {self.position_unit!r}; known are "
                f"{', '.join(POSITION_UNITS)}"
            )
        if not self.counts_per_electron > 0:
            raise ValueError(
                f"counts_per_electron = {self.counts_per_electron}; more than 0 is required"
            )

    @classmethod
    def taken_from(cls, known: dict[str, Any]) -> "Arrangement":
        """Arrangement among `known` properties, which is removed from them."""
        names = [f.name for f in fields(cls) if f.name in known]
        return cls(**{name: value for name in names if (value := known.pop(name)) is not None})

    def dataset(
        self, counts: Any, positions: Any, grid: Grid, mask: Any = None, **more: Any
    ) -> Dataset:
        """Return the `Dataset` of a file's counts and positions, arrays or lists over views."""
        corner = self.zero_frequency == "corner"
        if corner or self.counts_per_electron != 1:
            counts = _each(lambda c: Rearranged(c, corner, self.counts_per_electron), counts)
        scale = np.asarray(POSITION_UNITS[self.position_unit] or grid.pixel)
        if np.any(scale != 1):
            positions = _each(lambda p: np.asarray(p[:], float) * scale, positions)
        if corner and mask is not None:
            mask = np.fft.fftshift(mask, axes=(-2, -1))
        return Dataset(counts, positions, grid, mask, bad_data=self.bad_data, **more)


DATASET = Arrangement()  # that of a `Dataset` itself


class Rearranged:
    """Patterns with the zero frequency in the middle, in electrons, read when indexed."""

    def __init__(self, counts: Any, corner: bool, per_electron: float):
        self.counts = counts
        self.corner = corner
        self.per_electron = per_electron
        self.shape = counts.shape
        self.dtype = counts.dtype if per_electron == 1 else np.dtype(np.float32)

    def __getitem__(self, index: Any) -> np.ndarray:
        block = np.asarray(self.counts[index])
        block = np.fft.fftshift(block, axes=(-2, -1)) if self.corner else block
        return block if self.per_electron == 1 else (block / self.per_electron).astype(np.float32)


def _each(change, arrays):
    return [change(a) for a in arrays] if isinstance(arrays, list) else change(arrays)
