"""Detection of invalid shots: corrupted or lost frames, and positions far from the scan."""

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import median_filter
from scipy.sparse import coo_array, csgraph
from scipy.spatial import KDTree

WILD_RATIO = 3.0  # ratio of the doses of a shot and of the brightest shots around it
WILD_DEVIATIONS = 8.0  # standard deviations of √dose over the scan
MIN_DOSE = 0.5  # of the median: if 99 % of the doses exceed it, no pattern is empty by chance
NEIGHBOURS = 8
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
    none. Patterns without counts are lost ones only if the others hold enough counts that an
    empty pattern cannot occur by chance.
    """
    if len(dose) < MIN_SHOTS:
        return np.zeros(len(dose), bool)
    middle = float(np.median(dose))
    root = np.sqrt(dose)
    deviation = 1.4826 * np.median(np.abs(root - np.sqrt(middle))) + 0.02 * np.sqrt(middle) + 0.5
    bright = root > np.sqrt(middle) + WILD_DEVIATIONS * deviation
    bright &= dose > WILD_RATIO * _bright_around(dose, positions)
    some = dose[dose > 0]
    narrow = middle > 1 and np.percentile(some, 1) > MIN_DOSE * middle
    return bright | ((dose == 0) & narrow)


def _bright_around(dose, positions) -> Float[np.ndarray, " shot"]:
    """Third largest dose of the nearest shots in space, or of the five adjacent in time."""
    count = min(NEIGHBOURS + 1, len(dose))
    near = KDTree(positions).query(positions, k=count)[1].reshape(len(dose), count)
    ranked = np.sort(np.where(near == np.arange(len(dose))[:, None], 0, dose[near]), axis=1)
    return np.maximum(ranked[:, -min(3, count)], median_filter(dose, min(5, len(dose))))


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
    step = np.median(KDTree(positions).query(positions, k=2)[0][:, 1])
    cell = max(FAR_STEPS * step, FAR_WINDOWS * window)
    cells, member = np.unique(np.floor(positions / cell), axis=0, return_inverse=True)
    pairs = KDTree(cells).query_pairs(1.5, output_type="ndarray")
    graph = coo_array((np.ones(len(pairs)), pairs.T), (len(cells), len(cells)))
    group = csgraph.connected_components(graph, directed=False)[1][member.ravel()]
    outside = group != np.argmax(np.bincount(group))
    return outside if outside.mean() <= MAX_LEFT_OUT else np.zeros(n, bool)
