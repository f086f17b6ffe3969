"""Copper phthalocyanine: a flat molecule, and a crystal of them."""

import numpy as np
from ase import Atoms
from ase.cell import Cell
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from .arrange import centre_atoms
from .cutting import Zone, tile, zone_rotation

CELL = Cell.fromcellpar([12.886, 3.769, 12.061, 96.22, 90.62, 90.32])  # α-CuPc, P-1, Z = 1


def copper_phthalocyanine(
    width: float = 60.0, thickness: float = 37.69, zone_axis: Zone = (0, 1, 0)
) -> Atoms:
    """Film of complete CuPc molecules, `width`² × `thickness` [Å] between their centres.

    By default the beam is along the columns.

    An idealised α phase: its cell, one molecule each (Hoshino, Takenaka & Miyaji, Acta Cryst. B59,
    393 (2003)). Columns along b, where the molecules are 3.40 Å apart and slip between two arms
    (the α(×) stacking); rotated about b so that no contact is shorter than H···H 2.0 Å. This last
    angle is not the refined one.
    """
    sites = Atoms("Cu", cell=CELL, pbc=True)
    centres = tile(sites, width, thickness, zone_axis).positions
    along_b = Rotation.from_euler(
        "zxz", [45.0, np.degrees(np.arccos(3.40 / CELL.lengths()[1])), 198.0], degrees=True
    )
    turn = zone_rotation(sites, zone_axis) @ zone_rotation(sites, (0, 1, 0)).T @ along_b.as_matrix()
    molecule = copper_phthalocyanine_molecule()
    places = centres[:, None] + molecule.positions @ turn.T
    return centre_atoms(
        Atoms(numbers=np.tile(molecule.numbers, len(centres)), positions=places.reshape(-1, 3))
    )


def copper_phthalocyanine_molecule() -> Atoms:
    """CuC₃₂H₁₆N₈ [Å], flat in x-y with Cu at the origin and two of its four arms along x; symmetry
    D₄h.

    Bond lengths are the means of Brown, J. Chem. Soc. A 1968, 2488, with C–H 1.08 Å.
    """
    nitrogen = np.array([1.935, 0.0])
    alpha = nitrogen + 1.366 * _direction(54.25)  # C–N–C 108.5°
    bridge = np.full(2, _bridge(alpha, 1.328))
    beta = _reached(alpha, 1.453, 0.700)  # half of C–C 1.400 off the arm's axis, as is delta
    gamma = beta + 1.393 * _direction(31.2)  # C–C–C 121.2°
    delta = _reached(gamma, 1.388, 0.700)
    on_gamma = gamma + 1.08 * _away(gamma, beta, delta)
    on_delta = delta + 1.08 * _away(delta, gamma, delta * [1, -1])
    pairs = [
        ("C", alpha),
        ("C", beta),
        ("C", gamma),
        ("C", delta),
        ("H", on_gamma),
        ("H", on_delta),
    ]
    arm = [
        ("N", nitrogen),
        ("N", bridge),
        *pairs,
        *((symbol, place * [1, -1]) for symbol, place in pairs),
    ]
    symbols = [symbol for symbol, _ in arm]
    flat = np.array([place for _, place in arm])
    arms = [flat, flat[:, ::-1] * [-1, 1], -flat, flat[:, ::-1] * [1, -1]]  # rotated by 90° each
    places = np.concatenate([[[0, 0]], *arms])
    return Atoms(["Cu", *4 * symbols], positions=np.column_stack([places, np.zeros(len(places))]))


def _direction(degrees: float) -> Float[np.ndarray, "2"]:
    return np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])


def _reached(start, bond, height):
    """The place at `height` above the arm's axis, one bond further out."""
    return np.array([start[0] + np.sqrt(bond**2 - (height - start[1]) ** 2), height])


def _bridge(alpha, bond):
    """The place (d, d) on the diagonal, one bond from `alpha` on its inner side."""
    half = alpha.sum() / 2
    return half + np.sqrt(half**2 - (alpha @ alpha - bond**2) / 2)


def _away(place, *neighbours):
    """Unit vector between the two bonds, on their far side."""
    bonds = sum((n - place) / np.linalg.norm(n - place) for n in neighbours)
    return -bonds / np.linalg.norm(bonds)
