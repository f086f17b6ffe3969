"""EMD files: those of Berkeley (version 0.2, also older py4DSTEM and prismatic) and emdfile 1.0.

Berkeley: a group with the attribute `emd_group_type` = 1 holds `data` and a vector `dim1` … with
`name` and `units` for each of its axes. emdfile, the format of py4DSTEM: the attribute is "array",
the vectors are `dim0` … (of two numbers where they are even), and `metadatabundle/calibration`
holds the calibration. Axes in units of inverse lengths or angles are those of the detector.
"""

import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..hdf5 import H5, open_hdf5
from .frames import stored_frames
from .reading import Reading, Value, scan_values, stated, steps_of
from .source import (
    Source,
    find_dataset,
    members,
    require_filters,
    scalar_of,
    string_of,
    unwritten,
)

RECIPROCAL = re.compile(r"(\^?-1|1\s*/|rad)", re.IGNORECASE)


def is_emd(source: Source) -> bool:
    """True for a file with groups of EMD."""
    return source.file is not None and bool(emd_arrays(source.file))


def read_emd(path: Path, dataset: str | None = None) -> Reading:
    """Reading of the array of four axes, or of three; `dataset` names one of several."""
    with open_hdf5(path) as file:
        found = [stored for stored in emd_arrays(file) if stored.ndim in (3, 4)]
        most = [stored for stored in found if stored.ndim == 4] or found
        if dataset is None and len(most) == 1:
            stored = most[0]
        else:
            stored = find_dataset(file, path, dataset)
        require_filters(stored, path)
        steps = [_axis(vector) for vector in _vectors(stored)]
        axes = _axes(stored.ndim, [unit for _, unit in steps])
        frames = stored_frames(stored, axes)
        values = scan_values(tuple(stored.shape[axis] for axis in axes))
        if len(steps) == stored.ndim:
            values |= steps_of([steps[axis] for axis in axes])
        values |= _calibration(file)
        return Reading(path, "EMD", frames, values, fault=unwritten(stored))


def emd_arrays(group: H5) -> list[H5]:
    """Datasets of arrays in groups that are marked as EMD."""
    found = []
    for inner in members(group):
        if not isinstance(inner, h5py.Group):
            continue
        marked = string_of(inner.attrs.get("emd_group_type", "")) in ("1", "array")
        arrays = [inner.get(one) for one in ("data", "datacube")] if marked else []
        # HyperSpy marks the group around those of its signals as well
        found += [one for one in arrays if isinstance(one, h5py.Dataset)] or emd_arrays(inner)
    return found


def _vectors(stored: H5) -> list[H5]:
    """Vectors of the axes of an array, in order."""
    first = 0 if "dim0" in stored.parent else 1
    names = [f"dim{first + n}" for n in range(stored.ndim)]
    return [stored.parent[name] for name in names if name in stored.parent]


def _axis(vector: H5) -> tuple[float | None, str]:
    """Step and unit of an axis."""
    values = np.asarray(vector[:2], float) if vector.size and vector.size > 1 else None
    unit = string_of(vector.attrs.get("units", ""))
    # Berkeley writes [n_m], [n_m^-1]; Å is A or Angstrom
    plain = re.sub(r"[\[\]_{}\s]", "", unit)
    plain = re.sub(r"(?i)^(1/)?(angstroms?|å)", r"\1A", plain)
    return (None if values is None else float(values[1] - values[0])), plain


def _axes(count: int, units: list[str]) -> tuple[int, ...]:
    """Axes of the scan before those of the detector; all are reversed where the latter come first,
    as HyperSpy writes them.
    """
    reciprocal = [bool(RECIPROCAL.search(unit)) for unit in units]
    if len(units) == count == 4 and reciprocal == [True, True, False, False]:
        return (3, 2, 1, 0)
    return tuple(range(count))


def _calibration(file: H5) -> dict[str, Value]:
    """Semiangle and rotation of a calibration of py4DSTEM; energy of a simulation by prismatic."""
    found: dict[str, Any] = {}

    def collect(name: str, item: Any) -> None:
        if name.endswith("metadatabundle/calibration"):
            found.update({key: scalar_of(item[key]) for key in item if _is_number(item[key])})
        elif name.endswith("simulation_parameters"):
            found.update(
                {
                    f"prismatic {key}": scalar_of(item.attrs[key])
                    for key in ("E", "sa")
                    if key in item.attrs
                }
            )

    file.visititems(collect)
    return stated(
        semiangle_mrad=(found.get("convergence_semiangle_mrad"), "convergence_semiangle_mrad"),
        voltage_kv=(found.get("prismatic E"), "simulation_parameters E"),
    )


def _is_number(item: Any) -> bool:
    return isinstance(item, h5py.Dataset) and item.shape == () and item.dtype.kind in "uif"
