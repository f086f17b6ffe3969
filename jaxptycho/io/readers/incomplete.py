"""Native files of one scan that `convert` left without what nobody knew: positions, beam, detector.

Instead of `/positions`, the attributes `scan_shape` and `step_angstrom` may describe a raster.
"""

from pathlib import Path

import h5py
import numpy as np

from ..hdf5 import open_hdf5
from .frames import stored_frames
from .reading import QUANTITIES, Reading, stated
from .source import Source

OF_VIEWS = {"views", "tilt_deg", "probe_guess"}  # of files that come from elsewhere
BEAM = {"voltage_kv", "wavelength_angstrom"}
DETECTOR = {"pixel_angstrom", "dk_inverse_angstrom"}


def is_incomplete(source: Source) -> bool:
    """True for a native file of one scan that lacks positions, the beam or the detector's step."""
    file = source.file
    counts = None if file is None else file.get("counts")
    if file is None or not isinstance(counts, h5py.Dataset) or counts.ndim != 3:
        return False
    names = set(file.attrs)
    complete = "positions" in file and names & BEAM and names & DETECTOR
    return "converted_from" in names and not OF_VIEWS & set(file) and not complete


def read_incomplete(path: Path) -> Reading:
    """Reading of such a file."""
    with open_hdf5(path) as file:
        frames = stored_frames(file["counts"])
        values = stated(**{n: (file.attrs[n], n) for n in QUANTITIES if n in file.attrs})
        positions, mask = (
            np.asarray(file[n][()]) if n in file else None for n in ("positions", "mask")
        )
    return Reading(path, "native, incomplete", frames, values, positions, mask)
