"""Cautions about a tilt series: its tilts, the origin of its positions, views that are repeated."""

import math
from collections.abc import Iterator

import numpy as np

from ..analysis.design import area_per_shot
from ..data import Dataset
from .caution import Caution, Measurement

FLAT = math.pi  # tilts in degrees no larger than this may have been radians
STEEP = 100.0  # degrees
SAME_TILT = 0.01  # degrees
FEWEST_SHOTS = 4


def of_tilts(measured: Measurement) -> Iterator[Caution]:
    """Tilts that are all the same, or whose unit may be another one."""
    if measured.data.tilts is None:
        return
    tilts = np.rad2deg(measured.data.tilts)
    largest = float(np.abs(tilts).max())
    if len(tilts) > 1 and np.ptp(tilts) < SAME_TILT:
        yield Caution(
            "tilt_deg",
            f"all {len(tilts)} views are tilted by {tilts[0]:.4g}° and show the specimen from one "
            "direction; has the list of tilts been lost?",
        )
    if largest <= FLAT / 2 and np.ptp(tilts) > 0.1 and len(tilts) >= 5:
        yield Caution(
            "tilt_deg",
            f"{len(tilts)} views are tilted by {largest:.3g}° at most; are the tilts of the file "
            "in radians, where degrees are required?",
        )
    if largest > STEEP:
        yield Caution(
            "tilts",
            f"tilts reach {largest:.4g}°, farther than most stages; are they in another unit? A "
            "file requires degrees, a Dataset radians",
        )


def of_origin(measured: Measurement) -> Iterator[Caution]:
    """Positions of a series that begin at zero in every view, as those of a scan do."""
    data = measured.data
    if data.tilts is None or not all(map(_starts_at_zero, data.positions)):
        return
    yield Caution(
        "data.origin",
        "the positions of every view begin at 0, so that the tilt axis goes through a corner of "
        'its scan; if they are counted from this corner, set data.origin = "middle"',
    )


def _starts_at_zero(positions: np.ndarray) -> bool:
    """True if zero is a corner of the scanned area, within half a step."""
    if len(positions) < FEWEST_SHOTS:
        return False
    ends = np.minimum(np.abs(positions.min(0)), np.abs(positions.max(0)))
    return bool((ends <= math.sqrt(area_per_shot(positions)) / 2).all())


def of_repeated_views(measured: Measurement) -> Iterator[Caution]:
    """Two views with the same patterns."""
    data = measured.data
    first_with: dict[bytes, int] = {}
    for view in range(data.n_views):
        same = first_with.setdefault(data.dose(view).tobytes(), view)
        if same != view and data.n_shots[view] >= FEWEST_SHOTS and _are_equal(data, same, view):
            yield Caution(
                "data.file",
                f"view {view} has the patterns of view {same}; has one of them been copied to "
                "both places?",
            )
            return


def _are_equal(data: Dataset, first: int, second: int) -> bool:
    """True if some patterns of two views, which have equal doses, are equal."""
    some = np.linspace(0, data.n_shots[first] - 1, FEWEST_SHOTS).astype(int)
    return bool((data.patterns(first, some) == data.patterns(second, some)).all())
