"""Master files of DECTRIS cameras (ARINA, QUADRO, EIGER …) in NeXus NXmx.

The patterns are in files beside the master, `data_000001` …, compressed by bitshuffle. ARINA
writes the scan into a further file, `NAME.h5` beside `NAME_master.h5`.
"""

import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..hdf5 import H5, open_hdf5
from .frames import Frames, joined_frames, stored_frames
from .reading import Reading, Value, stated
from .source import Source, require_filters, scalar_of, string_of

DETECTOR = "entry/instrument/detector"
SPECIFIC = f"{DETECTOR}/detectorSpecific"
OF_ELECTRONS = ("ARINA", "QUADRO", "ELA", "SINGLA")  # cameras
STEM = "STEM Metadata"


def is_master(source: Source) -> bool:
    """True for a master file with its `data_000001`."""
    if source.file is None or not isinstance(source.file.get("entry/data"), h5py.Group):
        return False
    return any(re.fullmatch(r"data_\d+", name) for name in source.file["entry/data"])


def read_master(path: Path) -> Reading:
    """Reading of a master file and the files that it names."""
    with open_hdf5(path) as file:
        parts = [_part(file, name, path) for name in sorted(file["entry/data"])]
        frames = joined_frames([part for part in parts if part is not None])
        announced = int(
            (scalar_of(file.get(f"{SPECIFIC}/ntrigger")) or 1)
            * (scalar_of(file.get(f"{SPECIFIC}/nimages")) or 0)
        )
        values = _quantities(file)
        mask = file.get(f"{SPECIFIC}/pixel_mask")
        mask = None if mask is None else np.asarray(mask[()]) == 0
    values = _of_scan(path) | values
    total = frames.shape[0]
    fault = None
    if announced and total != announced:
        fault = f"holds {total} frames, and its header announces {announced}"
    elif "scan_shape" in values and total != np.prod(values["scan_shape"].value):
        shape = values["scan_shape"].value
        fault = f"holds {total} frames, and its header announces a scan of {shape}"
    mask = None if mask is None or mask.all() or mask.shape != frames.shape[1:] else mask
    return Reading(path, "DECTRIS master file", frames, values, mask=mask, fault=fault)


def _part(file: H5, name: str, path: Path) -> Frames | None:
    """Patterns behind a link of a master file."""
    if not re.fullmatch(r"data_\d+", name):
        return None
    link: Any = file.get(f"entry/data/{name}", getlink=True)
    if isinstance(link, h5py.ExternalLink) and not path.with_name(link.filename).is_file():
        raise FileNotFoundError(
            f"{path.with_name(link.filename)}, which {path.name} names, is not there; put it "
            "beside its master file"
        )
    stored = file.get(f"entry/data/{name}")
    if not isinstance(stored, h5py.Dataset) or stored.ndim != 3:
        raise ValueError(
            f"{path} names patterns {name} that cannot be read; its data files are damaged, copy "
            "them again"
        )
    require_filters(stored, path)
    return stored_frames(stored)


def _quantities(file: H5) -> dict[str, Value]:
    def number(name: str) -> float | None:
        return scalar_of(file.get(name))

    camera = string_of(file.get(f"{DETECTOR}/description", ""))
    energy = number(f"{SPECIFIC}/photon_energy") or number(f"{DETECTOR}/photon_energy")
    electrons = any(name in camera.upper() for name in OF_ELECTRONS)
    pixel = number(f"{DETECTOR}/x_pixel_size")
    distance = number(f"{DETECTOR}/detector_distance")
    angle = 1e3 * pixel / distance if pixel and distance else None
    return stated(
        voltage_kv=(energy / 1e3 if energy and electrons else None, "photon_energy"),
        wavelength_angstrom=(
            None if electrons else number("entry/instrument/beam/incident_wavelength"),
            "incident_wavelength",
        ),
        detector_step_mrad=(angle, "pixel size and detector_distance"),
        exposure_s=(number(f"{DETECTOR}/count_time"), "count_time"),
        saturation_counts=(number(f"{SPECIFIC}/countrate_correction_count_cutoff"), "count_cutoff"),
    )


def _of_scan(path: Path) -> dict[str, Value]:
    """Scan and microscope, in the file that ARINA writes beside the master."""
    beside = path.with_name(re.sub(r"_master$", "", path.stem) + path.suffix)
    if beside == path or not beside.is_file():
        return {}
    with open_hdf5(beside) as file, open_hdf5(path) as master:
        if STEM not in file:
            return {}
        stem = {name: scalar_of(value) for name, value in file[STEM].attrs.items()}
        pixel = scalar_of(master.get(f"{DETECTOR}/x_pixel_size"))
    length = stem.get("Camera Length")
    voltage, size = stem.get("High Tension"), stem.get("Pixel Size")
    shape = stem.get("NumPixelsY"), stem.get("NumPixelsX")
    return stated(
        scan_shape=(
            None if None in shape else tuple(int(n or 0) for n in shape),
            "NumPixelsY, NumPixelsX",
        ),
        step_angstrom=(None if size is None else 10 * size, "Pixel Size"),
        voltage_kv=(None if voltage is None else voltage / 1e3, "High Tension"),
        detector_step_mrad=(
            1e3 * pixel / length if pixel and length else None,
            "pixel size and nominal camera length",
        ),
        scan_rotation_deg=(stem.get("Rotation"), "Rotation"),
        camera_length_m=(length, "Camera Length"),
    )
