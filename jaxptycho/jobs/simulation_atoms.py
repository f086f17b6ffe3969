"""The atoms that a simulation job names: a phantom, or a file."""

import inspect
from typing import Any

import ase
import numpy as np

from ..io.structures import read_structure
from ..simulate.phantoms import PHANTOMS
from ..simulate.phantoms.amorphous import amorphous_carbon
from ..simulate.phantoms.arrange import on_support
from ..simulate.phantoms.cutting import tile
from .schema import suggest
from .simulation_sections import AtomSource

VACUUM = 6.0  # Å without atoms, from which a cell holds a finite structure and not a crystal


def build_atoms(section: AtomSource) -> ase.Atoms:
    """The atoms that a job names."""
    if section.phantom is not None:
        atoms = _phantom(section.phantom, section.options)
    else:
        assert section.file is not None
        atoms = _cut(read_structure(section.file), section)
    if section.support_angstrom is None:
        return atoms
    width = float(np.ptp(atoms.positions[:, :2], axis=0).max())
    return on_support(atoms, amorphous_carbon(width=width, thickness=section.support_angstrom))


def _phantom(name: str, options: dict[str, Any]) -> ase.Atoms:
    build = PHANTOMS[name]
    known = inspect.signature(build).parameters
    for option in options:
        if option not in known:
            raise ValueError(f"{name} has no option {option}; {suggest(option, known)}")
    return build(**{k: tuple(v) if isinstance(v, list) else v for k, v in options.items()})


def _cut(cell: ase.Atoms, section: AtomSource) -> ase.Atoms:
    """A periodic cell tiled to the wanted size; a finite structure as it is, its middle at the
    origin.
    """
    width = section.width_angstrom
    thickness = section.thickness_angstrom
    if width is None and thickness is None:
        if cell.pbc.all() and min(gaps(cell)) < VACUUM:
            raise ValueError(
                f"{section.file} is a periodic cell of "
                f"{', '.join(f'{n:.4g}' for n in cell.cell.lengths())} Å without vacuum around "
                "it, which cannot be simulated as a single cell; give specimen.width_angstrom and "
                "thickness_angstrom, or a finite structure as xyz"
            )
        centred = cell.copy()
        centred.positions -= (cell.positions.min(0) + cell.positions.max(0)) / 2
        return centred
    if width is None or thickness is None or not cell.pbc.all():
        raise ValueError(
            f"specimen.width_angstrom and thickness_angstrom are {width} and {thickness}, and the "
            f"cell is {'' if cell.pbc.all() else 'not '}periodic; give both for a periodic cell, "
            "neither for a finite structure"
        )
    a, b, c = section.zone_axis or (0, 0, 1)
    return tile(cell, width, thickness, (a, b, c))


def gaps(cell: ase.Atoms) -> list[float]:
    """The widest layer without atoms [Å] across each lattice vector of a periodic cell."""

    def widest(axis: int) -> float:
        normal = np.cross(*np.delete(cell.cell.array, axis, 0))
        height = abs(cell.cell.volume) / np.linalg.norm(normal)
        places = np.sort(cell.get_scaled_positions()[:, axis])
        return float(height * np.diff([*places, places[0] + 1]).max())

    return [widest(axis) for axis in range(3)]
