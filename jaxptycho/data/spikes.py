"""Patterns with a spike, as a cosmic ray leaves it in one or a few neighbouring pixels.

A spike is far above what its pixel has in other patterns, and above the pixels around it in its
own. A reflection that lights up in few patterns is as large as the bright field, and stays for as
long as the probe is on its grain.
"""

import numpy as np
from jaxtyping import Bool, Float, Int, Num

from .pixel_statistics import PixelStatistics, dim_noise

RATIO = 5.0  # to the second largest value in a sample of patterns
ELECTRONS = 20.0  # at least, beyond what is usual
CONTRAST = 10.0  # to the fifth brightest pixel around
RANK = 5
REACH = 2  # pixels around
FEWEST_SHOTS = 32


def spike_limits(seen: PixelStatistics) -> Float[np.ndarray, "y x"] | None:
    """Counts that pixels in the camera's layout reach only by a spike; None for a small sample."""
    if seen.shots < FEWEST_SHOTS:
        return None
    return RATIO * np.maximum(seen.second, 0) + ELECTRONS * max(dim_noise(seen), 1e-30)


def spikes(
    patterns: Num[np.ndarray, "b y x"], limits: Float[np.ndarray, "y x"]
) -> Int[np.ndarray, " b"]:
    """Number of the pixel with the spike of every pattern, counted from 1; 0 without a spike.

    Patterns and limits are in the same layout, which is periodic.
    """
    found = np.zeros(len(patterns), int)
    above = patterns > _of_kind(limits, patterns.dtype)
    for shot in np.flatnonzero(above.any((1, 2))):
        beyond = np.argwhere(above[shot]).tolist()
        if len(beyond) < RANK and all(_alone(patterns[shot], *place) for place in beyond):
            y, x = beyond[0]
            found[shot] = 1 + y * limits.shape[1] + x
    return found


def _of_kind(limits: Float[np.ndarray, "y x"], kind: np.dtype) -> Num[np.ndarray, "y x"]:
    """The limits in the type of patterns, which are compared faster; whole counts exceed both."""
    if kind.kind not in "ui":
        return limits
    return np.minimum(np.floor(limits), np.iinfo(kind).max).astype(kind)


def _alone(pattern: Num[np.ndarray, "y x"], y: int, x: int) -> bool:
    """True if a pixel is far above all but a few of those around it."""
    around = np.arange(-REACH, REACH + 1)
    square = pattern.take(y + around, 0, mode="wrap").take(x + around, 1, mode="wrap")
    return bool(pattern[y, x] > CONTRAST * np.sort(square, axis=None)[-RANK])


def single_spikes(spikes: Num[np.ndarray, " shot"]) -> Bool[np.ndarray, " shot"]:
    """Shots with a spike in a pixel that has none in another one."""
    pixels, first, times = np.unique(spikes, return_index=True, return_counts=True)
    found = np.zeros(len(spikes), bool)
    found[first[(times == 1) & (pixels > 0)]] = True
    return found
