"""Detection of invalid shots: corrupted or lost frames, and positions far from the scan."""

import math
from collections.abc import Callable

import numpy as np
import scipy
from jaxtyping import Bool, Float

WILD_RATIO = 3.0  # ratio of the doses of a shot and of the brightest shots around it
WILD_DEVIATIONS = 8.0  # standard deviations of √dose over the scan
LOST_DOSE = 0.05  # of the median, at most, in a pattern of a blanked beam
MIN_DOSE = 0.5  # of the median: if 99 % of the other doses exceed it, none is lost by chance
MIN_DIFFERENT = 32  # pixels in which others differ, so that two are not equal by chance
MAX_REPEATED = 0.6  # of all patterns, beyond which they are calculated ones without noise
NEIGHBOURS = 8
BLOCK = 64  # patterns compared at once
MIN_SHOTS = 16  # patterns, minimum number for a statistical criterion
FAR_STEPS = 20  # scan steps from the rest of the scan, beyond which a position is wrong
FAR_WINDOWS = 2  # windows, likewise
MAX_LEFT_OUT = 0.1  # largest fraction of the shots that is left out


def wild_doses(
    dose: Float[np.ndarray, " shot"], positions: Float[np.ndarray, "shot 2"]
) -> Bool[np.ndarray, " shot"]:
    """Corrupted patterns, with far more counts than their neighbours, and lost ones.

    √dose of Poisson counts has the same deviation at every dose. A brighter region, such as
    vacuum beside a thick specimen, has bright neighbours in space and time; a corrupted frame has
    none. Patterns with hardly any counts are lost ones, as of a blanked beam, only if the others
    hold enough counts that this cannot occur by chance, and nothing is between: the edge of an
    opaque region has patterns of every dose.
    """
    middle = float(np.median(dose))
    if len(dose) < MIN_SHOTS or not 0 < middle < np.inf:
        return np.zeros(len(dose), bool)
    root = np.sqrt(dose)
    deviation = 1.4826 * np.median(np.abs(root - np.sqrt(middle))) + 0.02 * np.sqrt(middle) + 0.5
    bright = root > np.sqrt(middle) + WILD_DEVIATIONS * deviation
    bright &= dose > WILD_RATIO * _bright_around(dose, positions)
    lost = dose <= LOST_DOSE * middle
    narrow = middle > 1 and np.percentile(dose[~lost], 1) > MIN_DOSE * middle
    return bright | (lost & narrow)


def _bright_around(dose, positions) -> Float[np.ndarray, " shot"]:
    """Third largest dose of the nearest shots in space, or of the five adjacent in time."""
    count = min(NEIGHBOURS + 1, len(dose))
    near = scipy.spatial.KDTree(positions).query(positions, k=count)[1].reshape(len(dose), count)
    ranked = np.sort(np.where(near == np.arange(len(dose))[:, None], 0, dose[near]), axis=1)
    return np.maximum(
        ranked[:, -min(3, count)], scipy.ndimage.median_filter(dose, min(5, len(dose)))
    )


def is_usable(dose: Float[np.ndarray, " shot"], positions: Float[np.ndarray, "shot 2"]) -> bool:
    """True for a view with counts, of which nearly all patterns and positions are finite."""
    unusable = unusable_shots(dose, positions)
    return bool(np.nansum(dose) > 0) and float(unusable.mean()) <= MAX_LEFT_OUT


def unusable_shots(
    dose: Float[np.ndarray, " shot"], positions: Float[np.ndarray, "shot 2"]
) -> Bool[np.ndarray, " shot"]:
    """Shots whose counts (NaN in `dose`) or positions are not finite."""
    return np.isnan(dose) | ~np.isfinite(positions).all(1)


def repeated_patterns(
    dose: Float[np.ndarray, " shot"], patterns: Callable[[np.ndarray], np.ndarray]
) -> Bool[np.ndarray, " shot"]:
    """Patterns equal to that of the shot before, as a stopped camera or a failed copy repeats them.

    `patterns(shots)` are the counts [b, y, x] of some shots. Noise makes every pattern another
    one; where most are repeated they have none, and are all kept.
    """
    found = np.zeros(len(dose), bool)
    alike = np.append(False, (dose[1:] == dose[:-1]) & (dose[1:] > 0))
    others = np.flatnonzero(~alike[1:]) + 1
    if not alike.any() or not len(others):
        return found
    some = others[:: math.ceil(len(others) / BLOCK)]
    if np.median((patterns(some) != patterns(some - 1)).sum((1, 2))) < MIN_DIFFERENT:
        return found
    candidates = np.flatnonzero(alike)
    for start in range(0, len(candidates), BLOCK):
        shots = candidates[start : start + BLOCK]
        found[shots] = (patterns(shots) == patterns(shots - 1)).all((1, 2))
    return found if found.mean() <= MAX_REPEATED else np.zeros_like(found)


def far_positions(
    positions: Float[np.ndarray, "shot 2"], window: float
) -> Bool[np.ndarray, " shot"]:
    """Shots farther from the scan than `FAR_STEPS` steps and `FAR_WINDOWS` windows [Å].

    Positions within this distance are connected; the largest group is the scan. If the others are
    more than a tenth of all, the wrong ones cannot be identified.
    """
    n = len(positions)
    if n < 4:
        return np.zeros(n, bool)
    step = np.median(scipy.spatial.KDTree(positions).query(positions, k=2)[0][:, 1])
    cell = max(FAR_STEPS * step, FAR_WINDOWS * window)
    cells, member = np.unique(np.floor(positions / cell), axis=0, return_inverse=True)
    pairs = scipy.spatial.KDTree(cells).query_pairs(1.5, output_type="ndarray")
    graph = scipy.sparse.coo_array((np.ones(len(pairs)), pairs.T), (len(cells), len(cells)))
    group = scipy.sparse.csgraph.connected_components(graph, directed=False)[1][member.ravel()]
    outside = group != np.argmax(np.bincount(group))
    return outside if outside.mean() <= MAX_LEFT_OUT else np.zeros(n, bool)
