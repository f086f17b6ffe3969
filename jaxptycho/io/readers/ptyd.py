"""Prepared data of ptypy, `.ptyd` in HDF5.

`chunks/0`, `chunks/1` … hold `data` [shot, y, x], `positions` [shot, 2] (y, x) [m] and `weights`;
`meta` holds `energy` [keV], `distance` and `psize` [m]. The energy is that of photons; that of
electrons is converted where `meta/particle` or the user says so.
"""

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ...physics.grids import PHOTON_KEV_ANGSTROM
from ..hdf5 import H5, open_hdf5
from .frames import joined_frames, stored_frames
from .reading import Reading, Value, stated
from .source import Source, require_filters, scalar_of

METRES = 1e10  # Å


def is_ptyd(source: Source) -> bool:
    """True for a file with chunks of ptypy."""
    chunks = None if source.file is None else source.file.get("chunks")
    return isinstance(chunks, h5py.Group) and all(str(name).isdigit() for name in chunks)


def read_ptyd(path: Path) -> Reading:
    """Reading of all chunks of a file."""
    with open_hdf5(path) as file:
        chunks = [_chunk(file["chunks"], name, path) for name in sorted(file["chunks"], key=int)]
        if not chunks:
            raise ValueError(f"{path} holds no chunks of patterns; its preparation is unfinished")
        frames = joined_frames([stored_frames(chunk["data"]) for chunk in chunks])
        positions = _positions(chunks)
        mask = _mask(chunks, frames.shape[1:])
        values, announced = _quantities(file.get("meta"))
    fault = None
    if announced and announced != frames.shape[0]:
        fault = f"holds {frames.shape[0]} patterns, and its meta announces {announced}"
    if positions is not None and len(positions) != frames.shape[0]:
        raise ValueError(
            f"{path} holds {frames.shape[0]} patterns and {len(positions)} positions; write it "
            "again"
        )
    return Reading(path, "ptypy PTYD", frames, values, positions, mask, fault=fault)


def _chunk(chunks: H5, name: str, path: Path) -> H5:
    """Group of a chunk, whose file may be another one."""
    link: Any = chunks.get(name, getlink=True)
    chunk = chunks.get(name)
    if chunk is None:
        missing = getattr(link, "filename", f"chunks/{name}")
        raise FileNotFoundError(f"{missing}, which {path} names, is not there; put it beside it")
    if not isinstance(chunk.get("data"), h5py.Dataset) or chunk["data"].ndim != 3:
        raise ValueError(
            f"chunks/{name} in {path} has no data [shot, y, x]; its preparation is unfinished"
        )
    require_filters(chunk["data"], path)
    return chunk


def _positions(chunks: list[H5]) -> np.ndarray | None:
    """Positions (y, x) [Å]."""
    found = [chunk.get("positions") for chunk in chunks]
    if any(not isinstance(one, h5py.Dataset) or one.ndim != 2 for one in found):
        return None
    return METRES * np.concatenate([np.asarray(one[()], float)[:, :2] for one in found])


def _mask(chunks: list[H5], shape: tuple[int, ...]) -> np.ndarray | None:
    """Pixels that weigh something in the first shot of every chunk."""
    found = [chunk.get("weights") for chunk in chunks]
    if any(not isinstance(one, h5py.Dataset) or one.shape[-2:] != shape for one in found):
        return None
    mask = np.all([np.asarray(one[0] if one.ndim == 3 else one[()]) > 0 for one in found], axis=0)
    return None if mask.all() else mask


def _quantities(meta: Any) -> tuple[dict[str, Value], int]:
    """Quantities of the group `meta`, and the number of patterns that it announces."""
    found = (
        {} if meta is None else {name: meta[name][()] for name in meta if _is_dataset(meta, name)}
    )
    energy, distance = (scalar_of(found.get(name)) for name in ("energy", "distance"))
    pixel = np.asarray(found.get("psize", np.nan))
    wavelength = PHOTON_KEV_ANGSTROM / energy if energy else None
    step = None
    if distance and pixel.dtype.kind in "uif":
        step = tuple(np.broadcast_to(1e3 * pixel / distance, 2).tolist())
    values = stated(
        wavelength_angstrom=(wavelength, "energy"), detector_step_mrad=(step, "psize and distance")
    )
    return values, int(scalar_of(found.get("num_frames")) or 0)


def _is_dataset(meta: Any, name: str) -> bool:
    return isinstance(meta.get(name), h5py.Dataset)
