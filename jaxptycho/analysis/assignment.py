"""Found atoms against true ones: which is which, what is missing, extra, displaced, or of another element."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, min_weight_full_bipartite_matching
from scipy.spatial import KDTree

TOLERANCE = 0.7  # Å
DENSE = 256  # atoms of a cluster up to which its matrix of distances is full


class Matching(NamedTuple):
    """Pairs of found and true atoms, by their numbers, and who is left alone."""

    found: Int[np.ndarray, " m"]
    true: Int[np.ndarray, " m"]
    extra: Int[np.ndarray, " e"]  # found, but of no true atom
    missing: Int[np.ndarray, " k"]  # true, but not found


class Score(NamedTuple):
    """How many atoms were found, and how far from where they are."""

    found: int
    true: int
    matched: int
    bias: Float[np.ndarray, " d"]  # Å, the mean of found − true along every axis
    rmsd: Float[np.ndarray, " d"]  # Å, the root mean square of found − true along every axis

    @property
    def precision(self) -> float:
        """The part of the found atoms that are true; NaN where none was found."""
        return self.matched / self.found if self.found else np.nan

    @property
    def recall(self) -> float:
        """The part of the true atoms that were found; NaN where there are none."""
        return self.matched / self.true if self.true else np.nan

    @property
    def f1(self) -> float:
        """2·matched/(found + true), the harmonic mean of precision and recall."""
        return 2 * self.matched / (self.found + self.true) if self.found + self.true else np.nan


class AtomComparison(NamedTuple):
    """Found atoms against true ones: over all, whatever their elements, and element by element."""

    matching: Matching
    overall: Score
    elements: dict[str, Score]  # a pair counts where both are of this element
    swapped: Int[np.ndarray, " s"]  # the pairs, by their numbers in the matching, of two elements


def compare_atoms(
    found, true, tolerance: float = TOLERANCE, found_species=None, true_species=None
) -> AtomComparison:
    """Precision, recall, RMSD and bias of `found` positions [atom, axis] Å against `true` ones.

    Atoms are matched by position alone, so that one at its place but of the wrong element is a swapped one and not
    two errors. Remove translation and rotation first, if the experiment does not know them.
    """
    found, true = _places(found, "found"), _places(true, "true")
    matching = assign(found, true, tolerance)
    moved = found[matching.found] - true[matching.true]
    overall = _score(found, true, moved)
    if found_species is None or true_species is None:
        return AtomComparison(matching, overall, {}, np.zeros(0, int))
    ours, theirs = _symbols(found_species, found, "found"), _symbols(true_species, true, "true")
    first, second = ours[matching.found], theirs[matching.true]
    elements = {
        str(name): _score(
            ours[ours == name], theirs[theirs == name], moved[(first == name) & (second == name)]
        )
        for name in np.unique(np.concatenate([ours, theirs]))
    }
    return AtomComparison(matching, overall, elements, np.flatnonzero(first != second))


def assign(found, true, tolerance: float = TOLERANCE) -> Matching:
    """The pairs of found and true positions [atom, axis] Å that lie within `tolerance` of one another.

    Of all assignments the one with the least Σ d² + tolerance² for every pair that is not made: no pair is ever
    made to save another one further away. Solved exactly, one cluster of neighbours at a time, so that it costs
    hardly more than the search for neighbours (Kuhn, Naval Res. Logist. Q. 2, 83 (1955)).
    """
    if not tolerance > 0:
        raise ValueError(f"atoms within {tolerance} Å; wanted a tolerance of more than 0")
    found, true = _places(found, "found"), _places(true, "true")
    if found.shape[1] != true.shape[1]:
        raise ValueError(
            f"found atoms have {found.shape[1]} coordinates, true ones {true.shape[1]}; wanted as many"
        )
    edges = KDTree(found).sparse_distance_matrix(KDTree(true), tolerance, output_type="coo_matrix")
    gain = tolerance**2 - edges.data**2
    row, column = (np.asarray(side, int) for side in (edges.row, edges.col))
    alone = (np.bincount(row, minlength=len(found))[row] == 1) & (
        np.bincount(column, minlength=len(true))[column] == 1
    )
    pairs = [(row[alone], column[alone])]
    pairs += [
        _best(row[c], column[c], gain[c])
        for c in _clusters(row, column, ~alone, len(found), len(true))
    ]
    first, second = (np.concatenate(side) for side in zip(*pairs, strict=True))
    order = np.argsort(first)
    first, second = first[order], second[order]
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
    edges, label = edges[order := np.argsort(label, kind="stable")], label[order]
    return np.split(edges, np.flatnonzero(np.diff(label)) + 1)


def _best(row, column, gain):
    """The pairs of greatest gain in one cluster; not to make a pair gains nothing."""
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
    """The same for many atoms: each gets a partner of its own, with whom it stays when it makes no pair."""
    first = np.concatenate([i, np.arange(a), b_ := a + np.arange(b), a + j])
    second = np.concatenate([j, b + np.arange(a), b_ - a, b + i])
    # every full matching has a + b edges, so one constant for all keeps weights from zero, which would be no edge
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
            f"{what} atoms came as an array of shape {positions.shape}; wanted finite [atom, axis] in Å"
        )
    return positions


def _symbols(species, positions, what: str):
    symbols = np.asarray(species, str)
    if symbols.shape != (len(positions),):
        raise ValueError(
            f"{len(positions)} {what} atoms came with species of shape {symbols.shape}; wanted one each"
        )
    return symbols
