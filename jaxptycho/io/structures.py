"""Files of atoms through ASE, and the conversion between its (x, y, z) and (z, y, x) here."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import ase.io
import numpy as np
from ase.data import chemical_symbols
from ase.io.formats import filetype
from jaxtyping import Float

from ..physics.types import Numbers
from .atomic_write import atomic_path

READABLE = {"xyz": "xyz", "extxyz": "xyz", "cif": "cif", "vasp": "POSCAR"}
WRITABLE = {".xyz": ("extxyz", {}), ".cif": ("cif", {"wrap": False})}  # positions are kept


def read_structure(path: str | Path) -> ase.Atoms:
    """Read the structure of an xyz, cif or POSCAR file; faults are ValueErrors of one sentence."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is {'a folder' if path.is_dir() else 'not there'}; expected a file of atoms"
        )
    try:
        kind = filetype(str(path))
        frames = list(ase.io.iread(path, format=kind)) if kind in READABLE else None
    except Exception as error:  # ASE's readers raise many kinds
        raise ValueError(
            f"{path} cannot be read as atoms ({_reason(error)}); expected a complete xyz, cif or "
            "POSCAR file"
        ) from error
    if frames is None:
        raise ValueError(f"{path} looks like a file of type {kind!r}; expected xyz, cif or POSCAR")
    if len(frames) != 1 or not len(frames[0]):
        raise ValueError(
            f"{path} holds {len(frames)} structures ({sum(map(len, frames))} atoms); expected one "
            "of atoms"
        )
    atoms = frames[0]
    if not np.isfinite(atoms.positions).all():
        bad = int(np.flatnonzero(~np.isfinite(atoms.positions).all(1))[0])
        raise ValueError(
            f"{path}: atom {bad} ({atoms.symbols[bad]}) is at {atoms.positions[bad]}; expected "
            "finite Å"
        )
    if not atoms.numbers.all():
        bad = int(np.flatnonzero(atoms.numbers == 0)[0])
        raise ValueError(
            f"{path}: atom {bad} is of no element ({atoms.symbols[bad]}); name its element or "
            "remove it"
        )
    return atoms


def write_structure(path: str | Path, atoms: ase.Atoms, *, overwrite: bool = False) -> None:
    """Write atoms as .xyz (with all their columns) or .cif (periodic if they have a cell).

    An existing file is kept unless `overwrite`; the file is written completely or not at all.
    """
    path = Path(path)
    if path.suffix.lower() not in WRITABLE:
        raise ValueError(
            f"{path} ends in {path.suffix or 'nothing'}; atoms are written as "
            f"{' or '.join(WRITABLE)}"
        )
    kind, options = WRITABLE[path.suffix.lower()]
    try:
        with atomic_path(path, overwrite) as draft:
            ase.io.write(draft, atoms, format=kind, **options)
    except FileExistsError:
        raise
    except OSError as error:
        raise OSError(
            f"{path} could not be written ({_reason(error)}); make room or choose another folder"
        ) from error


def to_ase(
    positions: Float[np.ndarray, "atom 3"],
    symbols: Sequence[str] | np.ndarray,
    box: Numbers | None = None,
    columns: Mapping[str, np.ndarray] | None = None,
) -> ase.Atoms:
    """Atoms of ASE from `positions` (z, y, x) [Å].

    `box` (z, y, x) [Å] is that of the volume, from its first voxel's corner. `columns` are further
    numbers of every atom (amplitude, integral …), which xyz files keep; those with three for an
    atom are along (z, y, x) and reversed like the positions.
    """
    unknown = sorted(set(map(str, symbols)) - set(chemical_symbols[1:]))
    if unknown:
        raise ValueError(f"no element is called {', '.join(unknown)}; give chemical symbols")
    if len(symbols) != len(positions):
        raise ValueError(
            f"{len(positions)} positions came with {len(symbols)} symbols; expected one each"
        )
    cell = None if box is None else np.asarray(box, float)[::-1]
    atoms = ase.Atoms(list(map(str, symbols)), positions[:, ::-1], cell=cell)
    for name, values in (columns or {}).items():
        values = np.asarray(values)
        atoms.set_array(name, values[:, ::-1] if values.ndim == 2 else values)
    return atoms


def from_ase(atoms: ase.Atoms) -> tuple[Float[np.ndarray, "atom 3"], np.ndarray]:
    """Positions (z, y, x) [Å] and chemical symbols."""
    return atoms.positions[:, ::-1].copy(), np.asarray(atoms.get_chemical_symbols())


def _reason(error: BaseException) -> str:
    words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(words.split()) or type(error).__name__
