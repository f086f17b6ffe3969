"""Finite pieces cut out of a periodic crystal."""

from collections.abc import Mapping
from itertools import product

import numpy as np
from ase import Atoms
from jaxtyping import Float
from scipy.spatial import HalfspaceIntersection

from .arrange import centre_atoms, require_positive

Zone = tuple[int, int, int]
ROUNDING = 1e-3  # Å: what the digits of a cif leave open


def tile(cell: Atoms, width: float, thickness: float, zone_axis: Zone = (0, 0, 1)) -> Atoms:
    """Film of the crystal, `width`² × `thickness` [Å], with `zone_axis` along the beam.

    `zone_axis` is a lattice direction. The lattice vector a (or b if a is the zone axis) is in the
    x-z half-plane of positive x. The far faces are open: an integer number of cells gives exactly
    these cells.
    """
    require_positive(width=width, thickness=thickness)
    return centre_atoms(
        lattice(
            cell, zone_rotation(cell, zone_axis), np.zeros(3), np.array([width, width, thickness])
        )
    )


def facetted(
    cell: Atoms, facets: Mapping[Zone, float], turn: Float[np.ndarray, "3 3"] | None = None
) -> Atoms:
    """Crystallite [Å] around the cell's origin, bounded by complete families of lattice planes.

    `facets` gives each family {hkl} its distance [Å] from the middle; `cell` knows its space group,
    as those of `ase.spacegroup.crystal` and of cif files do. `turn` rotates the crystal.
    """
    turn = np.eye(3) if turn is None else turn
    normals, distances = _planes(cell, facets)
    normals = normals @ turn.T
    bounds = np.column_stack([normals, -distances])
    corners = HalfspaceIntersection(bounds, np.zeros(3)).intersections
    atoms = lattice(cell, turn, corners.min(0) - 1, corners.max(0) + 1)
    return centre_atoms(atoms[np.all(atoms.positions @ normals.T <= distances + ROUNDING, axis=1)])


def zone_rotation(cell: Atoms, zone_axis: Zone) -> Float[np.ndarray, "3 3"]:
    """The rotation R, r′ = R r, that brings the lattice direction [uvw] to z, and what it can of a
    to x.
    """
    if cell.cell.rank < 3:
        raise ValueError(
            f"the cell has {cell.cell.rank} lattice vectors; a crystal to be repeated needs three"
        )
    if not any(zone_axis):
        raise ValueError(
            "the zone axis [0 0 0] has no direction; give the lattice direction along the beam"
        )
    z = _unit(np.array(zone_axis) @ cell.cell.array)
    across = [v - (v @ z) * z for v in cell.cell.array[:2]]
    x = _unit(next(v for v in across if np.linalg.norm(v) > ROUNDING))
    return np.array([x, np.cross(z, x), z])


def lattice(
    cell: Atoms,
    turn: Float[np.ndarray, "3 3"],
    low: Float[np.ndarray, "3"],
    high: Float[np.ndarray, "3"],
) -> Atoms:
    """All atoms of the rotated crystal in the box low ≤ r < high [Å].

    The cell's origin is kept at the origin.
    """
    vectors = cell.cell.array @ turn.T
    corners = np.array(list(product(*zip(low, high, strict=True)))) @ np.linalg.inv(vectors)
    first = np.floor(corners.min(0)).astype(int) - 1
    last = np.ceil(corners.max(0)).astype(int) + 1
    cells = np.stack(np.meshgrid(*map(np.arange, first, last + 1), indexing="ij"), -1).reshape(
        -1, 1, 3
    )
    sites = (cells + cell.cell.scaled_positions(cell.positions) % 1) @ vectors
    inside = np.all((sites >= low - ROUNDING) & (sites < high - ROUNDING), axis=-1)
    return Atoms(
        numbers=np.broadcast_to(cell.numbers, inside.shape)[inside], positions=sites[inside]
    )


def _planes(cell, facets):
    """Outward normals and distances [Å] of all planes, each with its opposite."""
    group = cell.info["spacegroup"]
    families = [np.array(group.equivalent_reflections([hkl])) for hkl in facets]
    families = [np.unique(np.concatenate([f, -f]), axis=0) for f in families]
    normals = np.concatenate(families) @ cell.cell.reciprocal()
    distances = np.repeat(np.array(list(facets.values()), float), [len(f) for f in families])
    return normals / np.linalg.norm(normals, axis=1, keepdims=True), distances


def _unit(vector):
    return vector / np.linalg.norm(vector)
