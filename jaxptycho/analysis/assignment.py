"""Comparison of found atoms with true ones: matched, missing, extra, displaced, swapped."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, min_weight_full_bipartite_matching
from scipy.spatial import KDTree

from ..physics.types import Numbers

TOLERANCE = 0.7  # Å
DENSE = 256  # atoms, largest cluster with a full matrix of distances


class Matching(NamedTuple):
    """Pairs of found and true atoms, by their numbers, and unmatched atoms."""

    found: Int[np.ndarray, " m"]
    true: Int[np.ndarray, " m"]
    extra: Int[np.ndarray, " e"]  # found, but of no true atom
    missing: Int[np.ndarray, " k"]  # true, but not found


class Score(NamedTuple):
    """Numbers of found and matched atoms, and their displacements."""

    found: int
    true: int
    matched: int
    bias: Float[np.ndarray, " d"]  # Å, the mean of found − true along every axis
    rmsd: Float[np.ndarray, " d"]  # Å, the root mean square of found − true along every axis

    @property
    def precision(self) -> float:
        """Fraction of the found atoms that are true; NaN if none was found."""
        return self.matched / self.found if self.found else np.nan

    @property
    def recall(self) -> float:
        """Fraction of the true atoms that were found; NaN if there are none."""
        return self.matched / self.true if self.true else np.nan

    @property
    def f1(self) -> float:
        """F₁ = 2·matched/(found + true), the harmonic mean of precision and recall."""
        return 2 * self.matched / (self.found + self.true) if self.found + self.true else np.nan


class AtomComparison(NamedTuple):
    """Found atoms against true ones: over all elements, and for each element."""

    matching: Matching
    overall: Score
    elements: dict[str, Score]  # a pair counts where both are of this element
    swapped: Int[np.ndarray, " s"]  # the pairs, by their numbers in the matching, of two elements


def compare_atoms(
    found: Numbers,
    true: Numbers,
    tolerance: float = TOLERANCE,
    found_species: Numbers | None = None,
    true_species: Numbers | None = None,
) -> AtomComparison:
    """Precision, recall, RMSD and bias of `found` positions [atom, axis] Å against `true` ones.

    Atoms are matched by position only, so that an atom of the wrong element counts as one swapped
    atom and not as two errors. Remove translation and rotation first if the experiment does not
    determine them.
    """
    found = _places(found, "found")
    true = _places(true, "true")
    matching = assign(found, true, tolerance)
    moved = found[matching.found] - true[matching.true]
    overall = _score(found, true, moved)
    if found_species is None or true_species is None:
        return AtomComparison(matching, overall, {}, np.zeros(0, int))
    ours = _symbols(found_species, found, "found")
    theirs = _symbols(true_species, true, "true")
    first = ours[matching.found]
    second = theirs[matching.true]
    elements = {
        str(name): _score(
            ours[ours == name], theirs[theirs == name], moved[(first == name) & (second == name)]
        )
        for name in np.unique(np.concatenate([ours, theirs]))
    }
    return AtomComparison(matching, overall, elements, np.flatnonzero(first != second))


def assign(found: Numbers, true: Numbers, tolerance: float = TOLERANCE) -> Matching:
    """Pairs of found and true positions [atom, axis] Å within `tolerance` of one another.

    The assignment minimises Σ d², plus tolerance² for every pair that is not made, so that no
    close pair is broken in favour of a distant one. It is solved exactly for each cluster of
    neighbours, at hardly more cost than the search for neighbours (Kuhn, Naval Res. Logist. Q. 2,
    83 (1955)).
    """
    if not tolerance > 0:
        raise ValueError(f"atoms within {tolerance} Å; give a tolerance of more than 0")
    found = _places(found, "found")
    true = _places(true, "true")
    if found.shape[1] != true.shape[1]:
        raise ValueError(
            f"found atoms have {found.shape[1]} coordinates, true ones {true.shape[1]}; give both "
            "the same number"
        )
    edges = KDTree(found).sparse_distance_matrix(KDTree(true), tolerance, output_type="coo_matrix")
    gain = tolerance**2 - edges.data**2
    row, column = (np.asarray(side, int) for side in (edges.row, edges.col))
    isolated = (np.bincount(row, minlength=len(found))[row] == 1) & (
        np.bincount(column, minlength=len(true))[column] == 1
    )
    pairs = [(row[isolated], column[isolated])]
    pairs += [
        _best(row[c], column[c], gain[c])
        for c in _clusters(row, column, ~isolated, len(found), len(true))
    ]
    first, second = (np.concatenate(side) for side in zip(*pairs, strict=True))
    order = np.argsort(first)
    first = first[order]
    second = second[order]
    return Matching(
        first,
        second,
        np.setdiff1d(np.arange(len(found)), first),
        np.setdiff1d(np.arange(len(true)), second),
    )


def _clusters(row, column, wanted, rows: int, columns: int):
    """The wanted edges of every connected part of the graph of neighbours."""
    edges = np.flatnonzero(wanted)
    if not len(edges):
        return []
    n = rows + columns
    graph = coo_array((np.ones(len(edges)), (row[edges], rows + column[edges])), shape=(n, n))
    label = connected_components(graph, directed=False)[1][row[edges]]
    edges = edges[order := np.argsort(label, kind="stable")]
    label = label[order]
    return np.split(edges, np.flatnonzero(np.diff(label)) + 1)


def _best(row, column, gain):
    """Pairs of greatest total gain in one cluster; an omitted pair has gain 0."""
    rows, i = np.unique(row, return_inverse=True)
    columns, j = np.unique(column, return_inverse=True)
    if max(len(rows), len(columns)) <= DENSE:
        table = np.zeros((len(rows), len(columns)))
        table[i, j] = gain
        first, second = linear_sum_assignment(table, maximize=True)
        made = table[first, second] > 0
    else:
        first, second = _sparse_assignment(i, j, gain, len(rows), len(columns))
        made = (first < len(rows)) & (second < len(columns))
    return rows[first[made]], columns[second[made]]


def _sparse_assignment(i, j, gain, a: int, b: int):
    """Pairs by a sparse assignment, in which an unmatched atom has a dummy partner."""
    first = np.concatenate([i, np.arange(a), b_ := a + np.arange(b), a + j])
    second = np.concatenate([j, b + np.arange(a), b_ - a, b + i])
    # a constant keeps weights from zero, which would not be an edge; it has no effect, as every
    # full matching has a + b edges
    weight = np.concatenate([-gain, np.zeros(a + b + len(i))]) + 2 * np.max(gain) + 1
    return min_weight_full_bipartite_matching(
        coo_array((weight, (first, second)), shape=(a + b, a + b)).tocsr()
    )


def _score(found, true, moved) -> Score:
    nothing = np.full(moved.shape[1], np.nan)
    bias = moved.mean(0) if len(moved) else nothing
    rmsd = np.sqrt(np.mean(moved**2, axis=0)) if len(moved) else nothing
    return Score(len(found), len(true), len(moved), bias, rmsd)


def _places(positions, what: str) -> Float[np.ndarray, "n d"]:
    positions = np.asarray(positions, float)
    if positions.ndim != 2 or not np.isfinite(positions).all():
        raise ValueError(
            f"{what} atoms came as an array of shape {positions.shape}; finite [atom, axis] in Å "
            "are required"
        )
    return positions


def _symbols(species, positions, what: str):
    symbols = np.asarray(species, str)
    if symbols.shape != (len(positions),):
        raise ValueError(
            f"{len(positions)} {what} atoms came with species of shape {symbols.shape}; give one "
            "each"
        )
    return symbols
