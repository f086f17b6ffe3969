"""Orders in which the shots of a scan are visited: random, neighbours together, spread, alternating.

Functions of the positions [Å] alone. An order gives groups of at most `size` indices that hold
every shot once; they are as equal as can be, so that little of a padded batch is idle.
"""

import math

import numpy as np
from scipy.sparse import coo_array, csgraph
from scipy.spatial import KDTree


def random(positions, size, rng):
    """Groups drawn by lot."""
    order = rng.permutation(len(positions))
    return np.array_split(order, math.ceil(len(order) / size)) if len(order) else []


def compact(positions, size, rng):
    """Groups of neighbours, in boxes of a random orientation."""
    return _boxes(
        _turned(positions, rng), np.arange(len(positions)), even_size(len(positions), size)
    )


def sparse(positions, size, rng):
    """Groups spread over the scan: each holds one shot of every box of neighbours."""
    n = math.ceil(len(positions) / size)
    boxes = [
        rng.permutation(box)
        for box in _boxes(_turned(positions, rng), np.arange(len(positions)), n)
    ]
    return [np.array([box[i] for box in boxes if i < len(box)]) for i in range(n)]


def spread(positions, fraction, seed=0):
    """Indices, in order, of a `fraction` of the positions that lies evenly over the scan: at equal steps along
    a path through ever smaller boxes of neighbours."""
    n, rng = len(positions), np.random.default_rng([seed, 4])
    size = max(1, round(fraction * n))
    path = np.concatenate(_boxes(_turned(positions, rng), np.arange(n), 1))
    return np.sort(path[((np.arange(size) + rng.uniform()) * n / size).astype(int)])


def even_size(n: int, size: int) -> int:
    """Size of the largest of the groups into which `n` shots fall, `size` at most."""
    return math.ceil(n / math.ceil(n / size)) if n else 1


ORDERS = {"random": random, "compact": compact, "sparse": sparse}


def _boxes(points, index, size):
    """Neighbours in boxes of `size`, the last one with what is left, by bisection of the longer side."""
    if len(index) <= size:
        return [index] if len(index) else []
    axis = int(np.argmax(np.ptp(points[index], axis=0)))
    ranked = index[np.argsort(points[index, axis], kind="stable")]
    half = math.ceil(len(index) / size) // 2 * size
    return _boxes(points, ranked[:half], size) + _boxes(points, ranked[half:], size)


def _turned(positions, rng):
    angle = rng.uniform(0, 2 * np.pi)
    return positions @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


def alternating(positions) -> np.ndarray:
    """A colour 0 or 1 for every position: the parity of the steps along the minimum spanning tree."""
    n = len(positions)
    distance, near = KDTree(positions).query(positions, k=min(9, n))
    rows = np.repeat(np.arange(n), near.size // n)
    # no edge has length zero in a sparse graph, not even between shots at one place
    lengths = distance.ravel() + 1e-6 * distance.max() + np.finfo(float).tiny
    tree = csgraph.minimum_spanning_tree(coo_array((lengths, (rows, near.ravel())), (n, n)).tocsr())
    first = np.unique(csgraph.connected_components(tree, directed=False)[1], return_index=True)[1]
    steps = csgraph.dijkstra(tree, directed=False, indices=first, unweighted=True, min_only=True)
    return steps.astype(int) % 2
