"""Checks of a scan before it is calibrated."""

import numpy as np
from jaxtyping import Float

from ..data import Dataset
from ..data.pixel_statistics import noise_over_mean

FEWEST_SHOTS = 16
FLAT = 1e-3  # breadth over length of positions on a line
SAME = 1e-3  # steps between equal positions


def require_scanned_area(data: Dataset) -> None:
    """Raise ValueError for what is no single scan of an area."""
    if data.n_views > 1:
        raise ValueError(
            f"the measurement has {data.n_views} views, and one scan is calibrated; give the view "
            "as a file of its own"
        )
    count = data.n_shots[0]
    if count < FEWEST_SHOTS:
        raise ValueError(
            f"{count} patterns do not determine camera and optics; a scan of at least "
            f"{FEWEST_SHOTS} is required"
        )
    positions = data.positions[0]
    offsets = positions - positions.mean(0)
    length, breadth = np.linalg.svd(offsets, compute_uv=False)
    if breadth <= FLAT * length:
        raise ValueError(
            f"the {count} positions of the scan are on a line; check scan.shape, or give a scan "
            "of an area"
        )
    times = _visits(positions, length / np.sqrt(count))
    if times > 1:
        raise ValueError(
            f"every position of the scan comes {times} times; are there {times} scans in one file? "
            "Give one of them as a file of its own, or name its patterns with data.frames"
        )


def require_variation(data: Dataset) -> None:
    """Raise ValueError for illuminated pixels that have one value in all patterns."""
    if noise_over_mean(data.valid_sample) == 0:
        raise ValueError(
            "most illuminated pixels have the same number in all patterns, which show neither a "
            "specimen nor the noise of counts; use the counts before averages and thresholds"
        )


def _visits(positions: Float[np.ndarray, "shot 2"], size: float) -> int:
    """How many times each position comes, 1 unless it is the same for all."""
    rounded = np.rint(positions / max(SAME * size, 1e-12)).astype(np.int64)
    counts = np.unique(rounded, axis=0, return_counts=True)[1]
    return int(counts[0]) if (counts == counts[0]).all() else 1
