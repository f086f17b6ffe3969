"""Results for other programs: volumes and slices as MRC and OME-TIFF, atoms as xyz and cif."""

from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unicodedata import normalize

import mrcfile
import numpy as np
import tifffile
from ase import Atoms as Structure
from ase.data import chemical_symbols

from ..analysis.tracing import atoms_of
from ..data.frame import spacing, warn_of_rounding
from ..model import Model
from ..parts.slices import Of, Voxels
from .atomic_write import atomic_path
from .structures import WRITABLE, to_ase, write_structure


def export(
    model: Model,
    path: str | Path,
    elements: Sequence[str] = (),
    threshold: float | None = None,
    of: Of = "phase",
) -> str:
    """Write a model's specimen to `path`, in the format of its ending; return a description.

    In voxels its potential or "phase", or its "absorption". As atoms a volume has those traced in
    it, of these `elements`, above a `threshold` [V] (`analysis.tracing`). An existing file is never
    overwritten.
    """
    path = Path(path)
    name = path.name.lower()
    if path.suffix.lower() in WRITABLE:
        specimen = model.specimen
        trace = specimen.rotates and specimen.listed_atoms() is None
        found = trace_structure(model, elements, threshold) if trace else structure(model)
        write_structure(path, found)
        return f"{found.get_chemical_formula()} traced" if trace else "atoms"
    writer = next((WRITERS[ending] for ending in WRITERS if name.endswith(ending)), None)
    if writer is None:
        known = ", ".join([*WRITERS, *WRITABLE])
        raise ValueError(
            f"{path} ends in none of {known}; choose one of them, result.h5 itself is HDF5"
        )
    held = voxels(model, of)
    writer(path, held)
    return f"{held.what}, {' × '.join(map(str, held.values.shape))} voxels (z, y, x)"


def voxels(model: Model, of: Of = "phase") -> Voxels:
    """Voxels of a model's specimen.

    Slices are in the frame of the measurement, a volume is about its tilt axis.
    """
    held = model.specimen.voxels(model.grid, of)
    if model.specimen.rotates:
        return held
    z, y, x = held.corner
    return held._replace(corner=(z, y + model.frame[0], x + model.frame[1]))


def structure(model: Model) -> Structure:
    """Atoms of a specimen made of them, with Debye–Waller factor B [Å²] and occupancy.

    Heights are counted from the tilt axis if there is one, as a volume's voxels are, else from the
    entrance face.
    """
    listed = model.specimen.listed_atoms()
    if listed is None:
        raise ValueError(
            f"the specimen is a {type(model.specimen).__name__} and holds no atoms; export it as "
            f"{' or '.join(WRITERS)}, or find atoms in it with `analysis.peaks`"
        )
    columns = {"debye_waller": listed.debye_waller, "occupancy": listed.occupancy}
    symbols = [chemical_symbols[z] for z in listed.numbers]
    height = 0.0 if listed.axis is None else listed.axis
    return to_ase(np.add(listed.positions, (-height, *model.frame)), symbols, columns=columns)


def trace_structure(
    model: Model, elements: Sequence[str], threshold: float | None = None
) -> Structure:
    """Atoms traced in a volume, positions relative to the tilt axis, as for its voxels."""
    if not elements:
        raise ValueError(
            "the specimen is a volume, whose atoms have yet to be found; give its elements, as in "
            f"--elements Pt,Al,O, or export it as {' or '.join(WRITERS)}"
        )
    volume: Any = model.specimen.in_voxels(model.grid)
    found: Any = atoms_of(volume, elements, threshold, smooth=max(volume.voxel))
    symbols = [chemical_symbols[z] for z in found.numbers]
    positions = np.asarray(found.positions, float) - [float(found.axis), 0.0, 0.0]
    return to_ase(positions, symbols)


def write_mrc(path: str | Path, held: Voxels) -> None:
    """Write voxels as an MRC volume: columns are x, rows y, sections z.

    Voxel size and origin in Å (Cheng et al. 2015).
    """
    with atomic_path(path) as draft, mrcfile.new(draft) as file:
        file.set_data(held.values)
        file.set_volume()  # a single section too, as its thickness is known
        file.voxel_size = held.voxel[::-1]
        warn_of_rounding(
            "the origins of MRC files", spacing(held.corner, np.float32), min(held.voxel[1:])
        )
        header: Any = file.header
        header.origin = held.corner[::-1]
        what = normalize("NFKD", held.what).encode("ascii", "ignore").decode()  # labels are ASCII
        file.add_label(f"jaxptycho {version('jaxptycho')}: {what}")


def write_ome_tiff(path: str | Path, held: Voxels) -> None:
    """Write voxels as OME-TIFF, a page for every z, physical sizes in Å (Goldberg et al. 2005)."""
    sizes = {f"PhysicalSize{axis}": step for axis, step in zip("ZYX", held.voxel, strict=True)}
    units = {f"PhysicalSize{axis}Unit": "Å" for axis in "ZYX"}
    about = {"axes": "ZYX", "Name": held.what, **sizes, **units}
    with atomic_path(path) as draft:
        tifffile.imwrite(draft, held.values, ome=True, photometric="minisblack", metadata=about)


WRITERS: dict[str, Callable[[str | Path, Voxels], None]] = {
    ".mrc": write_mrc,
    ".ome.tif": write_ome_tiff,
    ".ome.tiff": write_ome_tiff,
}
