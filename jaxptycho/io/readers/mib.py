"""Merlin of Quantum Detectors: `.mib` with an optional `.hdr` beside it (Merlin manual; LiberTEM).

Every frame has a header of text, `MQ1,number,bytes,chips,width,height,type,layout,…`, that ends in
the time, the exposure and the counter depth. Types U08, U16 and U32 are big-endian numbers. In the
raw type R64 a row of a chip consists of big-endian words of 64 bits with the first pixel in the
lowest bits: 64 pixels of 1 bit, 8 of 6 bits or 4 of 12 bits; 24 bits are two frames of 12 bits, the
higher ones first. Four chips (2x2) follow one another in each row, the last one first, and the
lower two are rotated by 180°. Rows are stored from the bottom of the picture upwards.
"""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .frames import Decode, Frames, joined_frames, record_frames, written_records
from .reading import Reading, Value, stated
from .source import Source

MARK = b"MQ1,"  # begins every frame
HEADER_BYTES = 1024  # more than any header has
CHIP = 256  # pixels along each side of a chip
RAW_BYTES = {1: 1 / 8, 6: 1, 12: 2, 24: 4}  # of a pixel, by counter depth
TIMED = 4096  # frames whose times are looked at
LINE_PAUSE = 3.0  # of the pause after a line, over the largest deviation of other pauses


class Header(NamedTuple):
    """What the header of a frame says."""

    number: int
    bytes: int
    chips: int
    width: int
    height: int
    type: str
    layout: str
    depth: int
    time: str
    exposure_s: float | None


def is_mib(source: Source) -> bool:
    """True for a file of frames of a Merlin camera, or its `.hdr`."""
    return source.head.startswith(MARK) or (
        source.suffix == ".hdr" and source.head.startswith(b"HDR")
    )


def read_mib(path: Path) -> Reading:
    """Reading of a `.mib` file and its continuations."""
    path = path.with_suffix(".mib") if path.suffix.lower() == ".hdr" else path
    hdr = read_hdr(path.with_suffix(".hdr"))
    header = read_header(path, hdr)
    frames, fault = _frames(path, header)
    announced = int(hdr.get("Frames in Acquisition (Number)", 0) or 0)
    if frames.shape[0] < announced:
        frames = joined_frames([frames, *_continuations(path, header, frames.shape[0])])
    total = frames.shape[0]
    values = stated(exposure_s=(header.exposure_s, "exposure"))
    shape, source = _scan_of(hdr, total, announced)
    if shape is not None:
        values["scan_shape"] = Value(shape, "header", source)
    elif (line := line_length(path, header, total)) is not None:
        values["scan_shape"] = Value((total // line, line), "measured", "pauses between lines")
    if announced and announced != total and fault is None:
        fault = f"holds {total} frames, and {path.stem}.hdr announces {announced}"
    return Reading(path, "Merlin MIB", frames, values, fault=fault)


def read_hdr(path: Path) -> dict[str, str]:
    """Entries of a `.hdr` file by name; empty where it is missing."""
    return parse_hdr(path.read_text(encoding="utf-8", errors="replace")) if path.is_file() else {}


def parse_hdr(text: str) -> dict[str, str]:
    """Entries of the header of an acquisition by name."""
    pairs = (line.partition(":\t") for line in text.splitlines())
    return {name.strip(): value.strip() for name, mark, value in pairs if mark}


def read_header(path: Path, hdr: dict[str, str]) -> Header:
    """Header of the first frame; the counter depth of old files is in the `.hdr`."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there; the frames of a .hdr file are required")
    with open(path, "rb") as file:
        return parse_header(file.read(HEADER_BYTES), path, hdr)


def parse_header(head: bytes, path: object, hdr: dict[str, str]) -> Header:
    """Header in the first bytes of a frame; ValueError for anything else."""
    size = head[11:16]
    head = head[: int(size)] if size.isdigit() else head
    parts = head.partition(b"\0")[0].decode("latin-1").split(",")
    try:
        number, size, chips, width, height = (int(part) for part in parts[1:6])
        ending = parts[parts.index("MQ1A") + 1 :] if "MQ1A" in parts else []
        depth = int(ending[2]) if len(ending) > 2 else int(hdr.get("Counter Depth (number)", 0))
        exposure = _seconds(ending[1]) if len(ending) > 1 else float(parts[10])
        time = ending[0].removesuffix("Z") if ending else parts[9].replace(" ", "T")
        kind, layout = parts[6], parts[7].strip()
    except (ValueError, IndexError):
        raise ValueError(
            f"{path} has no complete header of a Merlin frame (MQ1, …); is it truncated or another "
            "format? copy it again"
        ) from None
    return Header(number, size, chips, width, height, kind, layout, depth, time, exposure)


def _seconds(text: str) -> float:
    """Exposure such as 100000000ns or 0.1 in seconds."""
    number = float(re.sub("[a-z]+$", "", text))
    return number * {"ns": 1e-9, "us": 1e-6, "ms": 1e-3}.get(re.sub("[^a-z]", "", text), 1.0)


def _frames(path: Path, header: Header) -> tuple[Frames, str | None]:
    """Complete frames of one file, and the fault of an incomplete one."""
    record, shape, decode, dtype = frame_layout(path, header)
    count, rest = divmod(path.stat().st_size, record.itemsize)
    if count == 0:
        raise ValueError(
            f"{path} holds {rest} bytes, and its first frame has {record.itemsize}; the file is "
            "truncated, copy it again"
        )
    fault = f"ends after {rest} of the {record.itemsize} bytes of frame {count}" if rest else None
    written = written_records(path, record, count, 0, MARK)
    if written < count:
        fault = f"has space for {count} frames, of which {written} are written"
    return record_frames(path, record, written, 0, shape, decode, dtype, MARK), fault


def frame_layout(
    path: object, header: Header
) -> tuple[np.dtype, tuple[int, int], Decode, np.dtype]:
    """Record of a frame, shape of its pattern, its decoder and type."""
    if header.type in ("U08", "U16", "U32"):
        shape = (header.height, header.width)
        dtype = np.dtype(f">u{int(header.type[1:]) // 8}")
        record = np.dtype([("header", f"S{header.bytes}"), ("data", dtype, shape)])
        return record, shape, lambda raw: raw["data"][:, ::-1], dtype
    if header.type != "R64" or header.depth not in RAW_BYTES or header.chips not in (1, 4):
        raise ValueError(
            f"{path} holds frames of type {header.type} with {header.depth} bits on {header.chips} "
            "chips; U08, U16, U32 and raw frames (R64) of 1, 6, 12 or 24 bits on 1 or 4 chips can "
            "be read"
        )
    size = int(CHIP * header.chips * header.height * RAW_BYTES[header.depth])
    record = np.dtype([("header", f"S{header.bytes}"), ("data", np.uint8, (size,))])
    side = 2 if header.chips == 4 else 1
    shape = (header.height * side, CHIP * side)
    dtype = np.dtype({1: np.uint8, 6: np.uint8, 12: np.uint16, 24: np.uint32}[header.depth])
    return record, shape, lambda raw: decode_raw(raw["data"], header), dtype


def decode_raw(data: np.ndarray, header: Header) -> np.ndarray:
    """Patterns [shot, y, x] of raw frames [shot, byte]."""
    n = len(data)
    rows = (n, -1, header.height, header.chips, CHIP)
    data = np.ascontiguousarray(data)
    if header.depth == 1:
        flat = np.unpackbits(data.reshape(n, -1, 8)[..., ::-1], axis=-1, bitorder="little")
    elif header.depth == 6:
        flat = data.reshape(n, -1, 8)[..., ::-1]
    else:
        flat = data.view(">u2").reshape(n, -1, 4)[..., ::-1].astype(np.uint16)
    planes = flat.reshape(rows)
    if header.depth == 24:
        planes = (planes[:, :1].astype(np.uint32) << 12) | planes[:, 1:]
    chips = planes[:, 0].transpose(0, 2, 1, 3)  # [shot, chip, y, x]
    if header.chips == 1:
        return chips[:, 0, ::-1]
    top = np.concatenate([chips[:, 3], chips[:, 2]], -1)
    bottom = np.concatenate([chips[:, 1, ::-1, ::-1], chips[:, 0, ::-1, ::-1]], -1)
    return np.concatenate([top, bottom], 1)[:, ::-1]


def _continuations(path: Path, header: Header, count: int) -> list[Frames]:
    """Frames of the files that continue `path`: the same name with other digits at its end, and
    frames of the same kind that are numbered onwards.
    """
    stem = re.sub(r"\d+$", "", path.stem)
    others = []
    for other in path.parent.glob(f"{glob_safe(stem)}*.mib"):
        if other != path and re.fullmatch(r"\d*", other.stem[len(stem) :]):
            with open(other, "rb") as file:
                others.append((parse_header(file.read(HEADER_BYTES), other, {}), other))
    following = header.number + count
    found = []
    for theirs, other in sorted(others):
        if theirs.number == following and theirs[1:8] == header[1:8]:
            frames, _ = _frames(other, theirs)
            following += frames.shape[0]
            found.append(frames)
    return found


def glob_safe(name: str) -> str:
    """Pattern of a glob that matches `name` literally."""
    return re.sub(r"([\[\]*?])", r"[\1]", name)


def _scan_of(hdr: dict[str, str], total: int, announced: int):
    """Shape of the scan that a `.hdr` states, and where."""
    if hdr.get("ScanX", "").isdigit() and hdr.get("ScanY", "").isdigit():
        return (int(hdr["ScanY"]), int(hdr["ScanX"])), "ScanX, ScanY"
    line = int(hdr.get("Frames per Trigger (Number)", 0) or 0)
    frames = announced or total
    if 1 < line < frames and frames % line == 0:
        return (frames // line, line), "frames per trigger"
    return None, ""


def line_length(path: Path, header: Header, total: int) -> int | None:
    """Frames in a line of the scan, from the longer pauses between lines; None without such."""
    record, *_ = frame_layout(path, header)
    stamped = np.dtype(
        [("header", f"S{header.bytes}"), ("rest", "V", record.itemsize - header.bytes)]
    )
    count = min(total, TIMED, path.stat().st_size // record.itemsize)
    mapped = np.memmap(path, stamped, "r", shape=(count,))["header"]
    try:
        times = [parse_header(bytes(head), path, {}).time for head in mapped]
        stamps = np.array(times, "datetime64[ns]").astype(np.int64)
    except ValueError:
        return None
    pauses = np.diff(stamps)
    for line in range(2, count // 2 + 1):
        ends = np.zeros(len(pauses), bool)
        ends[line - 1 :: line] = True
        if total % line == 0 and _longer(pauses[ends], pauses[~ends]):
            return line
    return None


def _longer(ends: np.ndarray, others: np.ndarray) -> bool:
    """True if the pauses after lines are clearly longer than all others."""
    usual = np.median(others)
    return bool(ends.min() - usual > LINE_PAUSE * max(np.abs(others - usual).max(), 1))
