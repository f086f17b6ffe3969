"""Native files of one scan that `convert` left without what nobody knew: positions, beam, detector.

Instead of `/positions`, the attributes `scan_shape` and `step_angstrom` may describe a raster.
"""

from pathlib import Path

import h5py

from ..hdf5 import H5, open_hdf5
from ..native import optional_array
from .frames import stored_frames
from .reading import QUANTITIES, Reading, stated
from .source import Source

OF_VIEWS = {"views", "tilt_deg", "probe_guess"}  # of files that come from elsewhere
BEAM = {"voltage_kv", "wavelength_angstrom"}
DETECTOR = {"pixel_angstrom", "dk_inverse_angstrom"}


def is_incomplete(source: Source) -> bool:
    """True for a native file of one scan that lacks positions, the beam or the detector's step."""
    file = source.file
    if file is None or not is_scan(file) or "converted_from" not in file.attrs:
        return False
    names = set(file.attrs)
    return not ("positions" in file and names & BEAM and names & DETECTOR)


def is_scan(file: H5) -> bool:
    """True for an open native file of one scan, whose patterns are [shot, y, x]."""
    counts = file.get("counts")
    stored = isinstance(counts, h5py.Dataset) and counts.ndim == 3
    return stored and not OF_VIEWS & set(file)


def read_incomplete(path: Path) -> Reading:
    """Reading of a native file of one scan."""
    with open_hdf5(path) as file:
        frames = stored_frames(file["counts"])
        values = stated(**{n: (file.attrs[n], n) for n in QUANTITIES if n in file.attrs})
        positions, mask = (optional_array(file, name) for name in ("positions", "mask"))
    return Reading(path, "native", frames, values, positions, mask)
