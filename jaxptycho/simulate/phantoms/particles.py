"""Particles: core and shell, a crystal on a carbon nanotube, chains in one, a helix."""

import numpy as np
from ase import Atoms
from ase.build import nanotube
from ase.spacegroup import crystal
from jaxtyping import Float
from scipy.spatial import KDTree

from .amorphous import ALUMINA, packed
from .arrange import at, centre_atoms, merge, require_positive, rotate_atoms
from .cutting import facetted, lattice

GRAPHITE = 1.42, 5  # C–C [Å], and the step of (n, n) tubes in one another, 3.39 Å from wall to wall
WALL = 3.4  # Å, distance of contents from the wall of a tube (van der Waals)


def platinum_in_alumina(edge: float = 32.0, core: float = 20.0, seed: int = 0) -> Atoms:
    """A cube of amorphous Al₂O₃ around a truncated cube of Pt, `edge` and `core` [Å] wide.

    The specimen of You, Romanov & Pelz, Phys. Scr. (2025). Pt: Fm-3m, a = 3.9242 Å (Wyckoff,
    *Crystal Structures* 1 (1963)); alumina of 3.175 g/cm³ (Lamparter & Kniep, Physica B 234, 405
    (1997)), random but for the least distances of its pairs, kept 2.1 Å from the metal.
    """
    require_positive(edge=edge, core=core)
    if core >= edge:
        raise ValueError(
            f"the core of {core:g} Å does not fit a cube of {edge:g} Å; make it smaller"
        )
    cell = crystal("Pt", [(0, 0, 0)], spacegroup=225, cellpar=[3.9242] * 3 + [90] * 3)
    metal = facetted(cell, {(1, 0, 0): core / 2, (1, 1, 1): 0.75 * core})
    shell = packed(
        {"Al": 2, "O": 3}, (edge, edge, edge), 3.175, ALUMINA, np.random.default_rng(seed)
    )
    return merge(metal, at(shell, shell.positions - edge / 2), apart=2.1)


def tellurium_on_nanotube(
    diameter: float = 60.0, length: float = 70.0, walls: int = 3, tube: float = 116.0
) -> Atoms:
    """A trigonal Te crystal beside a carbon nanotube along y, c along the tube; in a box of 12 nm.

    `diameter` [Å] between its {100} sides and `length` between its {001} ends, the edges cut by
    {101}; the tube of `walls` armchair walls around (20, 20), `tube` [Å] long. After You, Romanov &
    Pelz, Phys. Scr. (2025). Te: P3₁21, a = 4.4572, c = 5.9290 Å, u = 0.2633 (Cherin & Unger, Acta
    Cryst. 23, 670 (1967)).
    """
    require_positive(diameter=diameter, length=length, walls=walls, tube=tube)
    cell = crystal(
        "Te", [(0.2633, 0, 1 / 3)], spacegroup=152, cellpar=[4.4572, 4.4572, 5.929, 90, 90, 120]
    )
    # of {101} against the base
    slope = np.arctan2(cell.cell.array[2, 2], cell.cell.array[0, 0] * np.cos(np.pi / 6))
    # leaves an end half as wide as the sides
    cap = length / 2 * np.cos(slope) + diameter / 4 * np.sin(slope)
    facets = {(1, 0, 0): diameter / 2, (0, 0, 1): length / 2, (1, 0, 1): cap, (0, 1, 1): cap}
    particle = facetted(cell, facets, _along_y(cell))
    carbon = _tubes(20, walls, tube)
    reach = _radius(20 + GRAPHITE[1] * (walls - 1)) + WALL - particle.positions[:, 0].min()
    return centre_atoms(
        merge(carbon, at(particle, particle.positions + np.array([reach, 0, 0])), apart=3.0)
    )


def zirconium_telluride_in_nanotube(
    chains: int = 3, length: float = 80.0, pitch: float = 400.0, walls: int = 2
) -> Atoms:
    """ZrTe₃ chains along y in the smallest carbon nanotube of `walls` walls that holds them [Å].

    An idealised relative of the structure of Pelz et al., Nat. Commun. 14, 7906 (2023). A chain is
    a stack of trigonal prisms ZrTe₆ that share their triangles: b = 3.926 Å, Te–Te 2.79 Å, Zr–Te
    2.95 Å (Furuseth & Fjellvåg, Acta Chem. Scand. 45, 694 (1991)); chains are 6.4 Å apart and twist
    about y by 360° in `pitch`, to the right if it is positive (Pham et al., Science 361, 263
    (2018)).
    """
    require_positive(chains=chains, length=length, walls=walls, pitch=abs(pitch))
    b = 3.926
    triangle = 2.20
    spacing = 6.4
    away = spacing / (2 * np.sin(np.pi / chains)) if chains > 1 else 0.0
    smallest = int(np.ceil((away + triangle + WALL) / _radius(1)))
    around = 2 * np.pi * np.arange(chains) / chains
    # 40°: chains interlock
    corners = np.radians([180.0, 39.4, -39.4]) + np.radians(40.0) + around[:, None]
    middle = away * _circle(around)
    zirconium = middle
    tellurium = (middle[:, None] + triangle * _circle(corners)).reshape(-1, 2)
    cells = b * np.arange(round(length / b))
    chain = merge(_columns("Te", tellurium, cells), _columns("Zr", zirconium, cells[:-1] + b / 2))
    return merge(
        _wound(_halved(chain, axis=1), pitch), _tubes(smallest, walls, length + 2 * b), apart=2.5
    )


def gadolinium_oxide_helix(
    radius: float = 20.0, pitch: float = 40.0, turns: float = 2.5, wire: float = 8.0
) -> Atoms:
    """Helix about y cut out of a single crystal of Gd₂O₃.

    A wire of radius `wire` is wound at `radius` [Å].

    Right-handed if `pitch` [Å] is positive, else left-handed. Ia-3, a = 10.813
    Å, the C type of sesquioxides (Zachariasen, Norsk Geol. Tidsskr. 9, 310 (1927)), whose
    coordinates hardly vary from one to the other: Gd 24d x = −0.030, O 0.391, 0.152, 0.380.
    """
    require_positive(radius=radius, turns=turns, wire=wire, pitch=abs(pitch))
    basis = [(0.25, 0.25, 0.25), (-0.030, 0, 0.25), (0.391, 0.152, 0.380)]
    cell = crystal(["Gd", "Gd", "O"], basis, spacegroup=206, cellpar=[10.813] * 3 + [90] * 3)
    angle = np.linspace(
        -np.pi * turns, np.pi * turns, int(turns * 2 * np.pi * np.hypot(radius, pitch) / 0.2)
    )
    x, z = radius * _circle(angle).T
    line = np.stack([x, pitch * angle / (2 * np.pi), z], axis=1)
    bulk = lattice(cell, np.eye(3), line.min(0) - wire, line.max(0) + wire)
    return centre_atoms(bulk[KDTree(line).query(bulk.positions)[0] <= wire])


def _tubes(smallest: int, walls: int, length: float) -> Atoms:
    """Armchair tubes (n, n) in one another along y, their axis the y axis and their middle the
    origin.
    """
    bond, step = GRAPHITE
    cells = max(1, round(length / (np.sqrt(3) * bond)))
    return merge(
        *(
            _standing(nanotube(n, n, cells, bond))
            for n in range(smallest, smallest + step * walls, step)
        )
    )


def _standing(tube: Atoms) -> Atoms:
    """ASE's tube along z, about its axis and through its middle, brought to y."""
    return rotate_atoms(_halved(tube, axis=2), 0.0, about_x_deg=-90.0)


def _radius(n: int) -> float:
    """Radius [Å] of an armchair tube (n, n), whose 6n bonds' projections go round it."""
    return 3 * GRAPHITE[0] * n / (2 * np.pi)


def _circle(angle: np.ndarray) -> np.ndarray:
    """Points (x, z) of the unit circle, right-handed about y: from z to x."""
    return np.stack([np.sin(angle), np.cos(angle)], axis=-1)


def _columns(symbol: str, places, heights) -> Atoms:
    """An atom at every place (x, z) and every height y."""
    x, z = np.repeat(places, len(heights), axis=0).T
    return Atoms(
        f"{symbol}{len(x)}", positions=np.stack([x, np.tile(heights, len(places)), z], axis=1)
    )


def _wound(atoms: Atoms, pitch: float) -> Atoms:
    """Atoms rotated about y by 360° in each `pitch`, right-handed if it is positive."""
    x, y, z = atoms.positions.T
    cos = np.cos(2 * np.pi * y / pitch)
    sin = np.sin(2 * np.pi * y / pitch)
    return at(atoms, np.stack([x * cos + z * sin, y, z * cos - x * sin], axis=1))


def _halved(atoms: Atoms, axis: int) -> Atoms:
    """The atoms with the middle of their extent along one axis at 0."""
    along = atoms.positions[:, axis]
    return at(atoms, atoms.positions - (along.min() + along.max()) / 2 * np.eye(3)[axis])


def _along_y(cell: Atoms) -> Float[np.ndarray, "3 3"]:
    """The rotation that brings c to y and the normal of (100) to x."""
    across, along = (
        v / np.linalg.norm(v) for v in (cell.cell.reciprocal().array[0], cell.cell.array[2])
    )
    return np.array([across, along, np.cross(across, along)])
