"""Amorphous matter: random packings with a least distance between atoms."""

from collections.abc import Mapping, Sequence

import numpy as np
from ase import Atoms, units
from ase.data import atomic_masses, atomic_numbers
from jaxtyping import Float
from scipy.spatial import KDTree

from .arrange import centre_atoms, require_positive

GRAM_PER_CM3 = 1e-3 * units.kg / (1e-2 * units.m) ** 3  # in atomic mass units per Å³
CARBON = {("C", "C"): 1.35}  # Å; shorter than the bond of graphite, 1.42 Å
ALUMINA = {
    ("Al", "Al"): 2.8,
    ("Al", "O"): 1.7,
    ("O", "O"): 2.5,
}  # Å; Lamparter & Kniep, Physica B 234, 405 (1997)
Table = tuple[np.ndarray, np.ndarray]  # each atom's kind, and the least distance [Å] of two kinds


def amorphous_carbon(
    width: float = 60.0, thickness: float = 30.0, grams_per_cm3: float = 2.0, seed: int = 0
) -> Atoms:
    """A support of amorphous carbon, `width`² × `thickness` [Å]: a random packing without bonds.

    Continued periodically in x and y it has no seam. Evaporated films have 1.8–2.1 g/cm³
    (Robertson, Mater. Sci. Eng. R 37, 129 (2002)).
    """
    require_positive(width=width, thickness=thickness, grams_per_cm3=grams_per_cm3)
    size = (width, width, thickness)
    return centre_atoms(packed({"C": 1}, size, grams_per_cm3, CARBON, np.random.default_rng(seed)))


def packed(
    formula: Mapping[str, int],
    size: tuple[float, float, float],
    grams_per_cm3: float,
    least: Mapping[tuple[str, str], float],
    rng: np.random.Generator,
) -> Atoms:
    """Random periodic packing [Å] in the box 0 ≤ r < `size`, of this composition and density.

    `least` is the smallest distance [Å] of each pair of elements in alphabetical order. Atoms
    thrown at random push apart those that are closer, half the overlap each (Jodrey & Tory, Phys.
    Rev. A 32, 2347 (1985)), until none are.
    """
    mass = sum(n * atomic_masses[atomic_numbers[symbol]] for symbol, n in formula.items())
    formulas = round(grams_per_cm3 * GRAM_PER_CM3 * float(np.prod(size)) / mass)
    symbols = [symbol for symbol, n in formula.items() for _ in range(n * formulas)]
    box = np.array(size)
    positions = push_apart(box * rng.random((len(symbols), 3)), box, _table(symbols, least))
    return Atoms(symbols, positions=positions)


def push_apart(
    positions: Float[np.ndarray, "atoms 3"],
    box: Float[np.ndarray, "3"],
    table: Table,
    rounds: int = 500,
) -> Float[np.ndarray, "atoms 3"]:
    """Positions [Å] in the periodic box, moved until every pair keeps its least distance."""
    kind, least = table
    for _ in range(rounds):
        positions = _wrapped(positions, box)
        i, j = (
            KDTree(positions, boxsize=box).query_pairs(1.02 * least.max(), output_type="ndarray").T
        )
        offset = positions[j] - positions[i]
        offset -= box * np.round(offset / box)
        distance = np.linalg.norm(offset, axis=1)
        wanted = least[kind[i], kind[j]]
        if np.all(distance >= wanted):
            return positions
        # slightly further than necessary, for convergence
        overlap = np.maximum(1.02 * wanted - distance, 0)
        push = (0.5 * overlap / np.maximum(distance, 1e-9))[:, None] * offset
        positions = positions + _summed(j, push, len(positions)) - _summed(i, push, len(positions))
    raise ValueError(
        f"{len(positions)} atoms do not fit a box of {' × '.join(f'{s:g}' for s in box)} Å; lower "
        "the density"
    )


def _table(symbols: Sequence[str], least: Mapping[tuple[str, str], float]) -> Table:
    kinds, kind = np.unique(symbols, return_inverse=True)
    return kind, np.array([[least[min(a, b), max(a, b)] for a in kinds] for b in kinds])


def _wrapped(positions, box):
    positions = positions % box
    return np.where(positions < box, positions, 0.0)  # −1e-17 % 1 is 1, outside the half-open box


def _summed(index, vectors, length):
    return np.stack([np.bincount(index, v, length) for v in vectors.T], axis=1)
