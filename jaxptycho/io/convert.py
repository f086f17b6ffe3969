"""Conversion of a camera's file to a native dataset: block by block, in any amount of memory.

The blocks are files in a folder beside the final one, each written completely or not at all, so
that a conversion that was killed goes on where it ended. Their compressed chunks are then copied
into the final file, which is renamed once it is complete.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .arrangement import ARRANGEMENT
from .hdf5 import FILTER, H5, create_hdf5, open_hdf5
from .native import CHUNK_BYTES, FORMAT
from .readers.completion import completed, missing, positions_of
from .readers.detector import with_detector
from .readers.reading import Reading
from .scan_layout import ScanLayout

PART_BYTES = 2**26  # of patterns in one block
IDENTITY = "source.json"  # in the folder of blocks: what they are blocks of

Progress = Callable[[int, int], None]  # (patterns written, all patterns)


def convert(
    reading: Reading,
    out: Path,
    known: Mapping[str, Any],
    progress: Progress = lambda done, total: None,
) -> Reading:
    """Write a reading with what is `known` beside it as the native file `out`; return all of it.

    Unknown quantities are left out; the reader of the native file names them. Raises ValueError
    for an incomplete file and for values that are not finite.
    """
    if out.exists():
        raise FileExistsError(f"{out} exists; choose another name or remove it first")
    known = dict(known)
    if of_counts := [name for name in ARRANGEMENT if name in known]:
        raise ValueError(
            f"{', '.join(of_counts)} came, and a conversion keeps the counts of the file; give "
            "them where the new file is read, in a job in [data]"
        )
    layout = ScanLayout.taken_from(known)
    reading = with_detector(completed(reading, known))
    parts = out.with_name(f".{out.name}.parts")
    shots = part_shots(reading)
    parts.mkdir(exist_ok=True)
    _check_identity(parts, reading, shots)
    starts = range(0, reading.patterns.shape[0], shots)
    for number, start in enumerate(starts):
        stop = min(start + shots, reading.patterns.shape[0])
        if not (path := parts / f"{number:06d}.h5").exists():
            _write_part(path, reading, start, stop)
        progress(stop, reading.patterns.shape[0])
    with create_hdf5(out) as file:
        _describe(file, reading, layout)
        _join(file, reading, [parts / f"{number:06d}.h5" for number in range(len(starts))])
    shutil.rmtree(parts)
    return reading


def part_shots(reading: Reading) -> int:
    """Patterns in one block: a multiple of those in a chunk."""
    together = _chunk(reading)[0]
    return max(PART_BYTES // _pattern_bytes(reading) // together, 1) * together


def _pattern_bytes(reading: Reading) -> int:
    return int(np.prod(reading.patterns.shape[1:])) * reading.patterns.dtype.itemsize


def _chunk(reading: Reading) -> tuple[int, int, int]:
    """Chunks of the native format: several small patterns, or one."""
    count, y, x = reading.patterns.shape
    return min(max(CHUNK_BYTES // _pattern_bytes(reading), 1), count), y, x


def _check_identity(parts: Path, reading: Reading, shots: int) -> None:
    """Note what the blocks are of; ValueError where they are of something else."""
    about = reading.path.stat()
    identity = {
        "file": str(reading.path.resolve()),
        "bytes": about.st_size,
        "modified": about.st_mtime_ns,
        "format": reading.format,
        "patterns": list(reading.patterns.shape),
        "type": reading.patterns.dtype.str,
        "frames": repr(reading["scan_shape"].value),
        "block": shots,
    }
    noted = parts / IDENTITY
    if not noted.exists():
        for left in parts.iterdir():
            left.unlink()
        noted.write_text(json.dumps(identity))
    elif json.loads(noted.read_text() or "null") != identity:
        raise ValueError(
            f"{parts} holds blocks of another conversion, or of {reading.path.name} before it "
            "changed; remove this folder, or choose another name"
        )


def _write_part(path: Path, reading: Reading, start: int, stop: int) -> None:
    block = np.asarray(reading.patterns[start:stop])
    seen = block if reading.mask is None else block[:, reading.mask]
    if block.dtype.kind == "f" and not np.isfinite(seen).all():
        bad = start + int(np.flatnonzero(~np.isfinite(seen).reshape(len(seen), -1).all(1))[0])
        raise ValueError(
            f"{reading.path}: counts of shot {bad} are not finite; correct the file, or mask these "
            "pixels"
        )
    with create_hdf5(path) as file:
        file.create_dataset(
            "counts",
            data=block.astype(block.dtype.newbyteorder("=")),
            maxshape=(None, *block.shape[1:]),
            chunks=_chunk(reading),
            **FILTER,
        )


def _describe(file: H5, reading: Reading, layout: ScanLayout) -> None:
    """Write all that is known of a scan but its patterns."""
    file.attrs.update({"format": FORMAT, "version": 1, "converted_from": reading.path.name})
    file.attrs.update({name: value.value for name, value in reading.values.items()})
    file.attrs["origins"] = json.dumps({n: v.origin for n, v in reading.values.items()})
    if not {"scan_shape", "step_angstrom"} & set(missing(reading)):
        positions = file.create_dataset(
            "positions", data=layout.applied([positions_of(reading)])[0]
        )
        positions.attrs.update({"units": "angstrom", "axes": "shot, (y, x)"})
    if reading.mask is not None:
        file["mask"] = reading.mask


def _join(file: H5, reading: Reading, parts: list[Path]) -> None:
    """Copy the compressed chunks of all blocks."""
    counts = file.create_dataset(
        "counts",
        reading.patterns.shape,
        reading.patterns.dtype.newbyteorder("="),
        chunks=_chunk(reading),
        **FILTER,
    )
    counts.attrs.update({"units": "counts", "axes": "shot, y, x"})
    first = 0
    for path in parts:
        with open_hdf5(path) as part:
            stored = part["counts"]
            for number in range(stored.id.get_num_chunks()):
                where = stored.id.get_chunk_info(number).chunk_offset
                skipped, packed = stored.id.read_direct_chunk(where)
                place = (first + where[0], *where[1:])
                counts.id.write_direct_chunk(place, packed, skipped)
            first += stored.shape[0]
