"""Conversion of a file's counts and positions to the conventions of a `Dataset`."""

from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np

from ..data import Dataset
from ..data.numbers import numbers
from ..physics.grids import Grid
from .axis import rotate_patterns

# Å for each unit of a file's positions; pixels are those of the object
POSITION_UNITS = {"angstrom": 1.0, "nm": 10.0, "um": 1e4, "m": 1e10, "pixel": None}
# keys of files of images, with the field of the arrangement and the type of its numbers
IMAGES = {"dark_file": ("dark", float), "mask_file": ("visible", bool)}


@dataclass(frozen=True, eq=False)
class Arrangement:
    """Conventions of a file that differ from those of a `Dataset`, or that it does not state.

    `position_unit` is one of `POSITION_UNITS`, `zero_frequency` its position in the patterns. The
    image `dark` is subtracted from all patterns, counts below `threshold` become zero, then all are
    divided by `counts_per_electron`. `visible` is True where a pixel counts, beside the mask of the
    file. Both images are in the layout of the file. `bad_data` as in `Dataset`.
    """

    position_unit: str = "angstrom"
    zero_frequency: Literal["middle", "corner"] = "middle"
    counts_per_electron: float = 1.0
    threshold: float | None = None  # counts of the file
    dark: np.ndarray | None = None  # [y, x], counts of the file
    visible: np.ndarray | None = None  # [y, x]
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
        given = {name: value for name in names if (value := known.pop(name)) is not None}
        return cls(**given)

    @property
    def of_counts(self) -> list[str]:
        """Names of what changes the counts or hides pixels, as far as it is given."""
        given = {
            "dark_file": self.dark is not None,
            "mask_file": self.visible is not None,
            "threshold": self.threshold is not None,
        }
        return [name for name, there in given.items() if there]

    def rotated(self, turns: int) -> "Arrangement":
        """Arrangement for patterns that are rotated by quarter `turns`."""
        images = {"dark": self.dark, "visible": self.visible}
        turned = {
            name: rotate_patterns(image, turns)
            for name, image in images.items()
            if image is not None
        }
        return replace(self, **turned)

    def counts(self, stored: Any) -> Any:
        """Counts in electrons of an array of patterns, read when they are indexed."""
        shape = stored.shape[-2:]
        for name, image in {"dark_file": self.dark, "mask_file": self.visible}.items():
            if image is not None and image.shape != tuple(shape):
                raise ValueError(
                    f"the image of {name} is {' × '.join(map(str, image.shape))} pixels, and the "
                    f"patterns are {' × '.join(map(str, shape))}; give one of the camera as it was "
                    "read out, before data.crop, bin and pad"
                )
        changed = (self.dark is not None, self.threshold is not None, self.counts_per_electron != 1)
        return Rearranged(stored, self) if any(changed) or self._corner else stored

    def mask(self, stored: np.ndarray | None) -> np.ndarray | None:
        """Mask [y, x] of the pixels that count, from that of the file."""
        if stored is None or self.visible is None:
            mask = self.visible if stored is None else stored
        else:
            mask = numbers(stored, "the mask", bool) & self.visible
        return np.fft.fftshift(mask, axes=(-2, -1)) if self._corner and mask is not None else mask

    @property
    def _corner(self) -> bool:
        return self.zero_frequency == "corner"

    def dataset(
        self, counts: Any, positions: Any, grid: Grid, mask: Any = None, **more: Any
    ) -> Dataset:
        """Return the `Dataset` of a file's counts and positions, arrays or lists over views."""
        counts = _each(self.counts, counts)
        scale = np.asarray(POSITION_UNITS[self.position_unit] or grid.pixel)
        if np.any(scale != 1):
            positions = _each(lambda p: np.asarray(p[:], float) * scale, positions)
        return Dataset(counts, positions, grid, self.mask(mask), bad_data=self.bad_data, **more)


DATASET = Arrangement()  # that of a `Dataset` itself
ARRANGEMENT = (*(f.name for f in fields(Arrangement)), *IMAGES)  # keys from which one is made


class Rearranged:
    """Patterns with the zero frequency in the middle, in electrons, read when indexed."""

    def __init__(self, counts: Any, arrangement: Arrangement):
        self.stored = counts
        self.arrangement = arrangement
        self.shape = counts.shape
        as_stored = arrangement.dark is None and arrangement.counts_per_electron == 1
        self.dtype = counts.dtype if as_stored else np.dtype(np.float32)

    def __getitem__(self, index: Any) -> np.ndarray:
        how = self.arrangement
        block = np.asarray(self.stored[index])
        if how.dark is not None:
            block = block - how.dark
        if how.threshold is not None:
            block = np.where(block < how.threshold, block.dtype.type(0), block)
        if how.zero_frequency == "corner":
            block = np.fft.fftshift(block, axes=(-2, -1))
        if how.counts_per_electron != 1:
            block = block / how.counts_per_electron
        return block.astype(self.dtype, copy=False)


def _each(change, arrays):
    return [change(a) for a in arrays] if isinstance(arrays, list) else change(arrays)
