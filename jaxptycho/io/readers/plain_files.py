"""Arrays of NumPy (`.npy`, `.npz`), and binaries without a header."""

import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy

from .frames import array_frames, joined_frames, record_frames
from .reading import Reading, scan_values
from .source import Source

MAX_UNPACKED_BYTES = 2**31  # of a compressed array of an `.npz`, which is held in memory
RAW_SUFFIXES = (".raw", ".bin", ".dat", ".img")


def is_numpy(source: Source) -> bool:
    """True for `.npy` and `.npz`."""
    zipped = source.suffix == ".npz" and source.head.startswith(b"PK")
    return source.head.startswith(b"\x93NUMPY") or zipped


def read_numpy(path: Path, dataset: str | None = None) -> Reading:
    """Reading of an `.npy`, or of the array `dataset` of an `.npz`, by default the only one."""
    if not zipfile.is_zipfile(path):
        with open(path, "rb") as file:
            shape, dtype, offset = _npy_header(file, path)
        return array_reading(path, "NumPy NPY", shape, dtype, offset)
    try:
        with zipfile.ZipFile(path) as archive:
            return _read_archive(archive, path, dataset)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, struct.error) as error:
        raise ValueError(f"{path} is damaged ({error}); copy it again") from None


def _read_archive(archive: zipfile.ZipFile, path: Path, dataset: str | None) -> Reading:
    """Reading of an `.npz`; a compressed array is unpacked at once."""
    member, shape, dtype, offset = _member(archive, path, dataset)
    if member.compress_type == zipfile.ZIP_STORED:
        return array_reading(path, "NumPy NPZ", shape, dtype, offset)
    if np.prod(shape) * dtype.itemsize > MAX_UNPACKED_BYTES:
        raise ValueError(
            f"{path} is compressed as a whole and larger than memory should hold; save it with "
            "numpy.save, or as HDF5"
        )
    with archive.open(member) as packed:
        array = np.asarray(npy.read_array(packed, allow_pickle=False))
    frames = array_frames(array.reshape(-1, *shape[-2:]))
    return Reading(path, "NumPy NPZ", frames, scan_values(shape))


def _member(archive: zipfile.ZipFile, path: Path, dataset: str | None):
    """Array of patterns in an archive: its entry, shape, type and place in the file."""
    found: dict[str, Any] = {}
    for member in archive.infolist():
        with archive.open(member) as inner:
            shape, dtype, size = _npy_header(inner, path)
        if len(shape) in (3, 4) and dtype.kind in "uif":
            with open(path, "rb") as file:  # a local header has fields of separate lengths
                file.seek(member.header_offset + 26)
                start = member.header_offset + 30 + sum(struct.unpack("<HH", file.read(4)))
            found[member.filename.removesuffix(".npy")] = (member, shape, dtype, start + size)
    if dataset is not None and dataset in found:
        return found[dataset]
    if len(found) == 1 and dataset is None:
        return next(iter(found.values()))
    listed = ", ".join(f"{name} {list(entry[1])}" for name, entry in found.items()) or "none"
    raise ValueError(
        f"{path} holds {len(found)} arrays that may be patterns ({listed}); one is required, name "
        'it: dataset="…", in a job data.dataset'
    )


def _npy_header(file: BinaryIO | Any, path: Path) -> tuple[tuple[int, ...], np.dtype, int]:
    """Shape, type and size of the header of an array."""
    try:
        version = npy.read_magic(file)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, columns, dtype = read(file)
    except ValueError as error:
        raise ValueError(
            f"{path} has no complete header of NumPy ({error}); copy it again"
        ) from None
    if columns and len(shape) > 1:
        raise ValueError(
            f"{path} is stored column by column; save it again with "
            "numpy.save(file, numpy.ascontiguousarray(array))"
        )
    return shape, dtype, file.tell()


def array_reading(
    path: Path, kind: str, shape: tuple[int, ...], dtype: np.dtype, offset: int
) -> Reading:
    """Reading of an array that fills a file from byte `offset`."""
    if len(shape) not in (3, 4) or dtype.kind not in "uif" or 0 in shape:
        raise ValueError(
            f"{path} holds an array {list(shape)} of {dtype}; patterns are real numbers with three "
            "or four axes"
        )
    count = int(np.prod(shape[:-2]))
    record = np.dtype((dtype, shape[-2:]))
    there = (path.stat().st_size - offset) // record.itemsize
    fault = None
    if there < count:
        fault = f"holds {there} complete patterns, and its header announces {count}"
    frames = record_frames(path, record, min(there, count), offset, shape[-2:])
    return Reading(path, kind, frames, scan_values(shape), fault=fault)


def is_raw(source: Source) -> bool:
    """True for the endings that files of bare numbers have."""
    return source.suffix in RAW_SUFFIXES


def read_raw(
    path: Path,
    frame_shape: Sequence[int] | None = None,
    dtype: str | None = None,
    offset_bytes: int = 0,
    gap_bytes: int = 0,
) -> Reading:
    """Reading of a binary file of bare numbers, of which shape and type must be given.

    `offset_bytes` come before the first pattern, and `gap_bytes` after each.
    """
    size = path.stat().st_size - offset_bytes
    if frame_shape is None or dtype is None:
        raise ValueError(
            f"{path} holds {path.stat().st_size} bytes without a header; give the size (y, x) and "
            'the type of its patterns, frame_shape=(256, 256), dtype="<u2", in a job '
            "data.frame_shape and data.dtype (further data.offset_bytes, data.gap_bytes)"
        )
    kind = type_of(dtype)
    if len(frame_shape) != 2 or min(frame_shape) < 1:
        raise ValueError(f"frame_shape = {list(frame_shape)}; height and width are required")
    plain = np.dtype((kind, tuple(frame_shape)))
    spaced = np.dtype([("data", plain), ("gap", "V", gap_bytes)])
    count, rest = divmod(size, spaced.itemsize)
    ends = rest == plain.itemsize and gap_bytes > 0  # without a gap
    if size < plain.itemsize:
        raise ValueError(
            f"{path} holds {size} bytes after offset_bytes, and a pattern of {tuple(frame_shape)} "
            f"{kind} has {plain.itemsize}; correct frame_shape or dtype"
        )
    fault = None
    if rest and not ends:
        fault = (
            f"does not divide into patterns of {frame_shape[0]} × {frame_shape[1]} {kind} "
            f"({rest} of {size} bytes are left over)"
        )
    shape = tuple(frame_shape)
    frames = record_frames(path, spaced, count, offset_bytes, shape, lambda raw: raw["data"], kind)
    if ends:
        last = record_frames(path, plain, 1, offset_bytes + count * spaced.itemsize, shape)
        frames = joined_frames([frames, last])
    return Reading(path, "raw binary", frames, fault=fault)


def type_of(name: str) -> np.dtype:
    """Type of real numbers called `name`, as NumPy names them; ValueError for others."""
    try:
        kind = np.dtype(name)
    except TypeError:
        kind = np.dtype("V1")
    if kind.kind not in "uif":
        raise ValueError(
            f"dtype = {name!r} is no type of counts; give one such as uint16, <u2, >u2 or float32"
        )
    return kind
