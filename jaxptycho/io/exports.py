"""Results for other programs: volumes and slices as MRC and OME-TIFF, atoms as xyz and cif."""

from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import mrcfile
import numpy as np
import tifffile
from ase import Atoms as Structure
from ase.data import chemical_symbols
from jaxtyping import Float

from ..analysis.tracing import atoms_of
from ..data.frame import spacing, warn_of_rounding
from ..inverse.fields import Of, stack, thicknesses
from ..model import Model
from ..parts.atoms import Atoms
from ..parts.indexed import PerShot, PerView
from ..parts.specimen import PotentialSlices
from ..parts.volume import Volume
from .drafts import drafted
from .structures import WRITABLE, to_ase, write_structure

WHAT = {"phase": ("potential (V)", "phase (rad)"), "absorption": ("absorptive potential (V)", "absorption")}


class Voxels(NamedTuple):
    """A volume, or slices one behind the other, entrance face first."""

    values: Float[np.ndarray, "z y x"]
    voxel: tuple[float, float, float]  # Å (z, y, x)
    corner: tuple[float, float, float]  # Å (z, y, x), where the middle of voxel [0, 0, 0] lies
    what: str  # with its unit


def export(
    model: Model, path: str | Path, elements: Sequence[str] = (), threshold: float | None = None, of: Of = "phase"
) -> str:
    """What was written of a model's specimen to `path`, whose ending says how. Never overwrites.

    In voxels its potential or "phase", or its "absorption". As atoms a volume has what is traced in it, of these
    `elements`, above a `threshold` [V] (`analysis.tracing`).
    """
    path = Path(path)
    name = path.name.lower()
    if path.suffix.lower() in WRITABLE:
        found = traced(model, elements, threshold) if isinstance(model.specimen, Volume) else structure(model)
        write_structure(path, found)
        return "atoms" if not isinstance(model.specimen, Volume) else f"{found.get_chemical_formula()} traced"
    writer = next((WRITERS[ending] for ending in WRITERS if name.endswith(ending)), None)
    if writer is None:
        known = ", ".join([*WRITERS, *WRITABLE])
        raise ValueError(f"{path} ends in none of {known}; choose one of them, result.h5 itself is HDF5")
    held = voxels(model, of)
    writer(path, held)
    return f"{held.what}, {' × '.join(map(str, held.values.shape))} voxels (z, y, x)"


def voxels(model: Model, of: Of = "phase") -> Voxels:
    """The potential [V] or phase [rad] that a specimen holds, or its absorption; ValueError for one without, and for one
    without slices of one thickness. Slices of no thickness have voxels as deep as the pixel is wide."""
    specimen = model.specimen
    if isinstance(specimen, Atoms):
        raise ValueError(f"the specimen is made of atoms, not of voxels; export it as {' or '.join(WRITABLE)}")
    values = stack(specimen, of)
    if isinstance(specimen, Volume):
        values = specimen.seen if of == "phase" else specimen.absorbing
    values = np.asarray(values, np.float32)
    if not np.isfinite(values).all():
        raise ValueError("the specimen holds values that are not finite; look at the run's history before exporting it")
    if isinstance(specimen, Volume):
        z, y, x = (-(n // 2) * p for n, p in zip(values.shape, specimen.voxel, strict=True))
        return Voxels(values, specimen.voxel, (z, y, x), WHAT[of][0])
    origin = _origin(specimen)
    if isinstance(origin, (PerShot, PerView)):
        raise ValueError("the slices have another origin in every view or shot; export one view at a time")
    each: Any = specimen
    if isinstance(each.thickness, (PerShot, PerView)):
        raise ValueError("the slices have another thickness in every view or shot; export one view at a time")
    depths = np.asarray(thicknesses(specimen), float)
    if np.ptp(depths) > 1e-3 * depths.mean():
        raise ValueError(
            f"the slices are {depths.min():g} to {depths.max():g} Å thick, and a volume has voxels of one size; "
            "reconstruct with equal slices, or take the slices from result.h5"
        )
    (dy, dx), (y, x) = model.grid.pixel, (float(v) for v in np.add(np.asarray(origin, float), model.frame))
    dz = float(depths[0]) or min(dy, dx)  # no file holds voxels without a depth
    what = WHAT[of][0 if isinstance(specimen, PotentialSlices) else 1]
    return Voxels(values, (dz, dy, dx), (float(depths[0]) / 2, y, x), what)


def structure(model: Model) -> Structure:
    """The atoms of a specimen made of them, with Debye–Waller factor B [Å²] and occupancy, their heights counted from
    the tilt axis where there is one, as a volume's voxels are, else from the entrance face."""
    specimen = model.specimen
    if not isinstance(specimen, Atoms):
        raise ValueError(
            f"the specimen is a {type(specimen).__name__} and holds no atoms; export it as {' or '.join(WRITERS)}, "
            "or find atoms in it with `analysis.peaks`"
        )
    columns = {"debye_waller": specimen.debye_waller, "occupancy": specimen.occupancy}
    for name, value in ({"positions": specimen.positions} | columns).items():
        if not eqx.is_array_like(value):
            raise ValueError(f"the atoms' {name} differ from view to view or shot to shot; export one at a time")
    symbols = [chemical_symbols[z] for z in specimen.numbers]
    numbers = {name: np.asarray(value, float) for name, value in columns.items()}
    height = 0.0 if specimen.axis is None else float(specimen.axis)  # pyright: ignore[reportArgumentType]
    places = np.add(np.asarray(specimen.positions, float), (-height, *model.frame))
    return to_ase(places, symbols, columns=numbers)


def traced(model: Model, elements: Sequence[str], threshold: float | None = None) -> Structure:
    """The atoms that a volume shows, their places counted from the tilt axis, as its voxels are."""
    if not elements:
        raise ValueError(
            "the specimen is a volume, whose atoms have yet to be found; say which elements there are, as in "
            f"--elements Pt,Al,O, or export it as {' or '.join(WRITERS)}"
        )
    volume: Any = model.specimen
    found = atoms_of(volume, elements, threshold, smooth=max(volume.voxel))
    symbols = [chemical_symbols[z] for z in found.numbers]
    return to_ase(np.asarray(found.positions, float) - [float(found.axis), 0.0, 0.0], symbols)  # type: ignore


def write_mrc(path: str | Path, held: Voxels) -> None:
    """Voxels as an MRC volume: columns are x, rows y, sections z; voxel size and origin in Å (Cheng et al. 2015)."""
    with drafted(path) as draft, mrcfile.new(draft) as file:
        file.set_data(held.values)
        file.set_volume()  # also a single section, whose thickness is known
        file.voxel_size = held.voxel[::-1]
        warn_of_rounding("the origins of MRC files", spacing(held.corner, np.float32), min(held.voxel[1:]))
        header: Any = file.header
        header.origin = held.corner[::-1]
        file.add_label(f"jaxptycho {version('jaxptycho')}: {held.what}")


def write_ome_tiff(path: str | Path, held: Voxels) -> None:
    """Voxels as OME-TIFF, a page for every z, physical sizes in Å (Goldberg et al. 2005)."""
    sizes = {f"PhysicalSize{axis}": step for axis, step in zip("ZYX", held.voxel, strict=True)}
    units = {f"PhysicalSize{axis}Unit": "Å" for axis in "ZYX"}
    about = {"axes": "ZYX", "Name": held.what, **sizes, **units}
    with drafted(path) as draft:
        tifffile.imwrite(draft, held.values, ome=True, photometric="minisblack", metadata=about)


WRITERS: dict[str, Callable[[str | Path, Voxels], None]] = {
    ".mrc": write_mrc,
    ".ome.tif": write_ome_tiff,
    ".ome.tiff": write_ome_tiff,
}


def _origin(specimen):
    return specimen.origin
