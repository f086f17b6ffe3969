"""Orders of the shots of a scan: random, neighbours together, spread, alternating.

They depend only on the positions [Å]. An order consists of groups of at most `size` indices that
contain every shot once, of nearly equal size to minimise the padding of batches.
"""

import math

import numpy as np
import scipy
from jaxtyping import Float


def random(
    positions: Float[np.ndarray, "shot 2"], size: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Groups of random shots."""
    order = rng.permutation(len(positions))
    return np.array_split(order, math.ceil(len(order) / size)) if len(order) else []


def compact(
    positions: Float[np.ndarray, "shot 2"], size: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Groups of neighbours, in boxes of a random orientation."""
    return _boxes(
        _turned(positions, rng), np.arange(len(positions)), even_size(len(positions), size)
    )


def sparse(
    positions: Float[np.ndarray, "shot 2"], size: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Groups spread over the scan: each holds one shot of every box of neighbours."""
    n = math.ceil(len(positions) / size)
    boxes = [
        rng.permutation(box)
        for box in _boxes(_turned(positions, rng), np.arange(len(positions)), n)
    ]
    return [np.array([box[i] for box in boxes if i < len(box)]) for i in range(n)]


def spread(positions: Float[np.ndarray, "shot 2"], fraction: float, seed: int = 0) -> np.ndarray:
    """Sorted indices of a `fraction` of the positions, evenly distributed over the scan.

    They are at equal steps along a path through successively smaller boxes of neighbours.
    """
    n = len(positions)
    rng = np.random.default_rng([seed, 4])
    size = max(1, round(fraction * n))
    path = np.concatenate(_boxes(_turned(positions, rng), np.arange(n), 1))
    return np.sort(path[((np.arange(size) + rng.uniform()) * n / size).astype(int)])


def even_size(n: int, size: int) -> int:
    """Size of the largest of equal groups of `n` shots, at most `size`."""
    return math.ceil(n / math.ceil(n / size)) if n else 1


ORDERS = {"random": random, "compact": compact, "sparse": sparse}


def _boxes(points, index, size):
    """Boxes of `size` neighbours, the last with the remainder, by bisection of the longer side."""
    if len(index) <= size:
        return [index] if len(index) else []
    axis = int(np.argmax(np.ptp(points[index], axis=0)))
    ranked = index[np.argsort(points[index, axis], kind="stable")]
    half = math.ceil(len(index) / size) // 2 * size
    return _boxes(points, ranked[:half], size) + _boxes(points, ranked[half:], size)


def _turned(positions, rng):
    angle = rng.uniform(0, 2 * np.pi)
    return positions @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


def alternating(positions: Float[np.ndarray, "shot 2"]) -> np.ndarray:
    """Colour 0 or 1 of every position: the parity of the steps along the minimum spanning tree."""
    n = len(positions)
    distance, near = scipy.spatial.KDTree(positions).query(positions, k=min(9, n))
    rows = np.repeat(np.arange(n), near.size // n)
    # an edge of a sparse graph must not have length zero, even between shots at one position
    lengths = distance.ravel() + 1e-6 * distance.max() + np.finfo(float).tiny
    tree = scipy.sparse.csgraph.minimum_spanning_tree(
        scipy.sparse.coo_array((lengths, (rows, near.ravel())), (n, n)).tocsr()
    )
    first = np.unique(
        scipy.sparse.csgraph.connected_components(tree, directed=False)[1], return_index=True
    )[1]
    steps = scipy.sparse.csgraph.dijkstra(
        tree, directed=False, indices=first, unweighted=True, min_only=True
    )
    return steps.astype(int) % 2
