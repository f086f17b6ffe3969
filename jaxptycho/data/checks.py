"""Checks of what a `Dataset` is made of: shapes, units, and numbers that are none."""

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from ..physics.grids import Grid
from ..physics.types import Numbers
from .numbers import numbers

MIN_EXTENT = 1e-3  # pixels, smallest plausible extent of a scan
MIN_PIXEL = 0.05  # wavelengths


def of_view(view: int, n_views: int) -> str:
    """Words that name a view in a sentence; empty for the only one."""
    return f" of view {view}" if n_views > 1 else ""


def require_scan(counts: Sequence[Any], positions: Sequence[np.ndarray], grid: Grid) -> None:
    """Raise ValueError for counts and positions of the views that do not fit one another."""
    if len(counts) != len(positions):
        raise ValueError(
            f"counts of {len(counts)} views came with positions of "
            f"{len(positions)}; give both for the same views (one array [scan y, scan x, "
            "y, x] without tilts is one scan; views are a list, or come with tilts)"
        )
    for view, (own, places) in enumerate(zip(counts, positions, strict=True)):
        _require_view(own, places, grid, of_view(view, len(counts)))


def _require_view(counts: Any, positions: np.ndarray, grid: Grid, where: str) -> None:
    if len(counts.shape) != 3 or counts.shape[0] == 0 or counts.dtype.kind not in "buif":
        raise ValueError(
            f"the counts{where} have shape {tuple(counts.shape)} and type {counts.dtype}; "
            "real numbers [shot, y, x] of at least one shot are required"
        )
    if tuple(counts.shape[1:]) != grid.shape:
        raise ValueError(
            f"patterns{where} are {tuple(counts.shape[1:])} pixels, the grid is {grid.shape}"
        )
    if positions.shape != (counts.shape[0], 2):
        last = len(positions) in (counts.shape[-1], math.prod(counts.shape[1:]))
        hint = "; are the axes of the scan last? They are required first" if last else ""
        raise ValueError(
            f"{counts.shape[0]} patterns{where} require positions of shape "
            f"({counts.shape[0]}, 2) in Å; got {positions.shape}{hint}"
        )
    if min(grid.pixel) < MIN_PIXEL * grid.wavelength:
        raise ValueError(
            f"pixels of {min(grid.pixel):.3g} Å{where} are far below half of the wavelength of "
            f"{grid.wavelength:.3g} Å, and waves show nothing smaller; the pixel is that of the "
            "object in Å: is it in nm or m, or that of the detector in 1/Å (dk_inverse_angstrom)?"
        )
    placed = positions[np.isfinite(positions).all(1)]
    extent = np.ptp(placed, axis=0).max() if len(placed) else 0.0
    pixel = min(grid.pixel)
    if 0 < extent < MIN_EXTENT * pixel:
        raise ValueError(
            f"the scan{where} extends over {extent:.3g} Å, where one pixel of the object "
            f"is {pixel:.3g} Å: positions are required in Å; are these in m? (multiply "
            "them by 1e10, or set data.position_unit)"
        )


def require_placed(positions: Sequence[np.ndarray]) -> None:
    """Raise ValueError for positions of views that are not finite."""
    for view, own in enumerate(positions):
        bad = np.flatnonzero(~np.isfinite(own).all(1))
        if len(bad):
            raise ValueError(
                f"the position of shot {bad[0]}{of_view(view, len(positions))} is {own[bad[0]]}, "
                f"and so are {len(bad)} of {len(own)}; finite ones are required: correct the file"
            )


def require_counts(doses: Sequence[Float[np.ndarray, " _"]]) -> None:
    """Raise ValueError for unusable counts of a view, and warn of patterns without counts."""
    for view, dose in enumerate(doses):
        where = of_view(view, len(doses))
        broken = np.flatnonzero(np.isnan(dose))
        if len(broken):
            raise ValueError(
                f"counts of shot {broken[0]}{where} are not finite inside the mask "
                f"({len(broken)} of {len(dose)} shots); mask these pixels or correct the file"
            )
        if np.isinf(dose).any():
            raise ValueError(
                f"counts of {np.isinf(dose).sum()} of {len(dose)} patterns{where} are larger than "
                f"32 bits hold (first: shot {np.flatnonzero(np.isinf(dose))[0]}); mask flagged "
                "pixels, or divide all counts by those of one electron"
            )
        empty = np.flatnonzero(dose == 0)
        if len(empty) == len(dose):
            raise ValueError(
                f"the patterns{where} hold no counts; check the mask and the dark subtraction, or "
                "leave this view out"
            )
        if len(empty):
            warnings.warn(
                f"{len(empty)} of {len(dose)} patterns{where} hold no counts (first: shot "
                f"{empty[0]}); they are kept as data of a low dose",
                stacklevel=4,
            )


def checked_tilts(tilts: Numbers, n_views: int) -> Float[np.ndarray, " view"]:
    """Tilts [rad] of all views; ValueError for another number of them, and for degrees."""
    made = numbers(tilts, "the tilts", float)
    if made.shape != (n_views,):
        raise ValueError(
            f"the tilts have shape {made.shape}; one is required for each of {n_views} views"
        )
    if not np.isfinite(made).all():
        bad = int(np.flatnonzero(~np.isfinite(made))[0])
        raise ValueError(
            f"the tilt of view {bad} is {made[bad]}; a finite one is required for each view"
        )
    if np.abs(made).max() > 2 * np.pi:
        raise ValueError(
            f"the tilts reach {np.abs(made).max():.4g}, more than a full turn of 2π; a "
            "Dataset requires radians: give np.deg2rad(tilts)"
        )
    return made


def checked_mask(mask: Numbers, grid: Grid) -> Bool[np.ndarray, "y x"]:
    """Mask of the pixels that count, the same array if it is one; ValueError for another shape."""
    if getattr(mask, "dtype", np.dtype(object)).kind == "f":
        given = np.asarray(mask)
        if np.isfinite(given).all() and (given != np.rint(given)).any():
            raise ValueError(
                f"the mask holds {given[given != np.rint(given)].flat[0]:.4g}; it is true where a "
                "pixel counts and has no weights: compare it with a threshold"
            )
    if getattr(mask, "dtype", np.dtype(object)).kind != "b":  # parts compare it by identity
        mask = numbers(mask, "the mask", bool)
    made: Any = mask
    if made.shape != grid.shape:
        raise ValueError(f"the mask is {made.shape} pixels, the patterns are {grid.shape}")
    if not made.any():
        raise ValueError("the mask hides every pixel; it is True where a pixel counts (invert it?)")
    return made


def checked_probe(guess: Numbers, grid: Grid) -> np.ndarray:
    """Guess of the probe [y, x] or [mode, y, x]; ValueError for anything else."""
    probe = numbers(guess, "the guess of the probe", complex)
    if (
        probe.ndim not in (2, 3)
        or probe.shape[-2:] != grid.shape
        or not np.isfinite(probe).all()
        or not probe.any()
    ):
        raise ValueError(
            f"the guess of the probe has shape {probe.shape}; finite waves [y, x] or "
            f"[mode, y, x] of {grid.shape} pixels, not zero everywhere, are required"
        )
    return probe
