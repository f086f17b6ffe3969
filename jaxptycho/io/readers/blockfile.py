"""Block files `.blo` of NanoMegas ASTAR: a header, an image, and frames of 8 bits.

Every frame is preceded by 6 bytes, AA 55 and its number. Steps of the scan are in nm, the pixels
of the detector in hundredths of a pixel per cm, the camera length in units of 0.1 mm.
"""

from pathlib import Path

import numpy as np

from .frames import record_frames, written_records
from .reading import Reading, stated
from .source import Source

HEADER = np.dtype(
    [
        ("id", "S6"),
        ("magic", "<u2"),
        ("image_offset", "<u4"),
        ("frames_offset", "<u4"),
        ("flags", "<u4"),
        ("pixels", "<u2"),
        ("pattern_rotation", "<u2"),
        ("nx", "<u2"),
        ("ny", "<u2"),
        ("scan_rotation", "<u2"),  # hundredths of a degree
        ("step_x", "<f8"),  # nm
        ("step_y", "<f8"),
        ("voltage", "<u4"),  # V
        ("pixel_density", "<u2"),  # hundredths of a pixel per cm
        ("camera_length", "<u4"),  # 0.1 mm
    ]
)
FRAME_HEADER = 6  # bytes
MARK = b"\xaa\x55"  # begins every frame


def is_blockfile(source: Source) -> bool:
    """True for a file that begins as block files do."""
    return source.head.startswith(b"IMGBLO")


def read_blockfile(path: Path) -> Reading:
    """Reading of a block file."""
    found = np.fromfile(path, HEADER, 1)
    if not found.size:
        raise ValueError(f"{path} ends within its header; copy it again")
    header = found[0]
    side = int(header["pixels"])
    shape = (int(header["ny"]), int(header["nx"]))
    record = np.dtype([("header", f"V{FRAME_HEADER}"), ("data", np.uint8, (side, side))])
    offset = int(header["frames_offset"])
    size = path.stat().st_size - offset
    if side == 0 or size < record.itemsize:
        raise ValueError(
            f"{path} holds no frame of {side} × {side} pixels after byte {offset}; the file is "
            "truncated, copy it again"
        )
    count = min(size // record.itemsize, int(np.prod(shape)))
    fault = None
    if count < np.prod(shape):
        fault = f"holds {count} complete frames, and its header announces a scan of {shape}"
    written = written_records(path, record, count, offset, MARK)
    if written < count:
        fault = f"has space for {count} frames, of which {written} are written"
    frames = record_frames(
        path, record, written, offset, (side, side), lambda raw: raw["data"], np.uint8, MARK
    )
    pixel_m = 1.0 / float(header["pixel_density"]) if header["pixel_density"] else None
    length = float(header["camera_length"]) * 1e-4
    angle = 1e3 * pixel_m / length if pixel_m and length else None
    values = stated(
        scan_shape=(shape, "NY, NX"),
        step_angstrom=((10 * header["step_y"], 10 * header["step_x"]), "SY, SX"),
        voltage_kv=(header["voltage"] / 1e3, "Beam_energy"),
        detector_step_mrad=(angle, "pixel size and nominal camera length"),
        scan_rotation_deg=(header["scan_rotation"] / 100, "Scan_rotation"),
        camera_length_m=(length, "Camera_length"),
    )
    return Reading(path, "NanoMegas BLO", frames, values, fault=fault)
