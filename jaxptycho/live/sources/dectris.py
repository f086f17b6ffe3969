"""Cameras of DECTRIS: stream V1 (JSON) and V2 (CBOR) over ZeroMQ, of which V2 supersedes V1.

A camera pushes the messages of a series: its start with its settings, images with their numbers,
its end (SIMPLON API reference). Messages of other series than the open one are counted and left.
"""

import json
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

from ...io.readers.dectris import OF_ELECTRONS
from ...io.stream import Series
from ..extra import require_extra
from ..intake import Intake
from .address import Address
from .connection import POLL, Patience

TYPED = {64: "|u1", 69: "<u2", 70: "<u4", 71: "<u8", 77: "<i2", 78: "<i4", 85: "<f4"}  # RFC 8746
ARRAY = 40  # tag of [shape, values]
COMPRESSED = 56500  # tag of [algorithm, bytes of an element, data]
SHUFFLED_BYTES = 8192  # of a block of bitshuffle
QUEUE = 4096  # messages that ZeroMQ keeps


def receive_v2(address: Address, intake: Intake, patience: float) -> None:
    """Hand over series of stream V2; the first of several channels."""
    cbor2 = require_extra("cbor2", "a camera of DECTRIS")
    for parts in _messages(address, intake, patience):
        try:
            message = cbor2.loads(parts[0])
            kind = message["type"]
        except (cbor2.CBORDecodeError, KeyError, TypeError, IndexError):
            intake.refuse()
            continue
        name = str(message.get("series_unique_id") or message.get("series_id"))
        if kind == "start":
            intake.begin(_series_v2(message, name))
        elif intake.series is None or intake.series.name != name:
            intake.refuse()
        elif kind == "image":
            intake.put(int(message["image_id"]), array_of(next(iter(message["data"].values()))))
        elif kind == "end":
            intake.end()


def receive_v1(address: Address, intake: Intake, patience: float) -> None:
    """Hand over series of stream V1, whose parts may come together or one by one."""
    settings: dict[str, Any] = {}
    header: dict[str, Any] = {}
    frame: dict[str, Any] = {}
    for part in _parts(address, intake, patience):
        about = {} if "encoding" in frame else _json(part)  # pixels follow their encoding
        kind = about.get("htype", "")
        if kind.startswith("dheader"):
            header = about
            settings = {}
        elif kind.startswith("dseries_end"):
            if intake.series is None or intake.series.name != str(about.get("series")):
                intake.refuse()
            else:
                intake.end()
        elif kind.startswith(("dimage-", "dimage_d-")):
            frame |= about
        elif about and header and not settings and not kind:
            settings = about
        elif "encoding" in frame:
            name = str(frame.get("series"))
            if name != str(header.get("series")):
                intake.refuse()
            else:
                pixels = _pixels_v1(part, frame)
                if intake.series is None or intake.series.name != name:
                    intake.begin(_series_v1(settings, name, pixels))
                intake.put(int(frame["frame"]), pixels)
            frame = {}


def array_of(value: Any) -> np.ndarray:
    """Array of CBOR tags; ValueError for others than those of the stream."""
    if value.tag != ARRAY:
        raise ValueError(f"an image came as CBOR tag {value.tag}; a typed array is required")
    shape, typed = value.value
    content = typed.value
    kind = np.dtype(TYPED[typed.tag])
    if getattr(content, "tag", None) == COMPRESSED:
        algorithm, size, data = content.value
        content = decompressed(data, algorithm, size)
    return np.frombuffer(content, kind).reshape(shape)


def decompressed(data: bytes, algorithm: str, size: int, total: int = 0) -> bytes:
    """Bytes of an image that was compressed by "lz4" or "bslz4" (bitshuffle of `size` bytes).

    `total` bytes come back from simulators that leave the header of bitshuffle empty.
    """
    module = require_extra("dectris.compression", "a compressed stream")
    if algorithm == "bslz4" and data[:12] == bytes(12):
        data = struct.pack(">QI", total, SHUFFLED_BYTES) + data[12:]
    return module.decompress(data, algorithm, elem_size=size)


def _series_v2(message: dict[str, Any], name: str) -> Series:
    shape = (int(message["image_size_y"]), int(message["image_size_x"]))
    dtype = np.dtype(message.get("image_dtype", "uint16"))
    about = _about(message, "incident_energy", "detector_description")
    return Series(name, int(message["number_of_images"]), shape, dtype, about)


def _series_v1(settings: dict[str, Any], name: str, first: np.ndarray) -> Series:
    frames = int(settings.get("nimages", 1)) * int(settings.get("ntrigger", 1))
    about = _about(settings, "photon_energy", "description")
    y, x = first.shape
    return Series(name, frames, (y, x), first.dtype.newbyteorder("="), about)


def _about(settings: dict[str, Any], energy: str, camera: str) -> dict[str, Any]:
    """Quantities of a series, under the names that a version of the stream gives them."""
    electrons = any(name in str(settings.get(camera)).upper() for name in OF_ELECTRONS)
    voltage = float(settings.get(energy) or 0) / 1e3 if electrons else None
    about = {"voltage_kv": voltage, "exposure_s": settings.get("count_time")}
    return {name: value for name, value in about.items() if value}


def _pixels_v1(data: bytes, frame: dict[str, Any]) -> np.ndarray:
    x, y = frame["shape"][:2]
    kind = np.dtype(frame["type"])
    encoding = frame["encoding"].rstrip("<>")
    if encoding:
        algorithm = "bslz4" if encoding.startswith("bs") else "lz4"
        data = decompressed(data, algorithm, kind.itemsize, x * y * kind.itemsize)
    return np.frombuffer(data, kind).reshape(y, x)


def _json(part: bytes) -> dict[str, Any]:
    """Fields of a part, empty for one that is no JSON."""
    if not part.startswith(b"{"):
        return {}
    try:
        return json.loads(part)
    except (ValueError, UnicodeDecodeError):
        return {}


def _parts(address: Address, intake: Intake, patience: float) -> Iterator[bytes]:
    for parts in _messages(address, intake, patience):
        yield from parts


def _messages(address: Address, intake: Intake, patience: float) -> Iterator[list[bytes]]:
    """Messages that a camera pushes; raises `Silent` where none come for too long."""
    zmq = require_extra("zmq", "a camera of DECTRIS")
    waits = Patience(patience, address, intake)
    with zmq.Context() as context, context.socket(zmq.PULL) as socket:
        socket.linger = 0
        socket.set_hwm(QUEUE)
        socket.rcvtimeo = int(1e3 * POLL)
        socket.connect(f"tcp://{address.host}:{address.port}")
        while True:
            try:
                parts = socket.recv_multipart()
            except zmq.Again:
                waits.tried()
                continue
            waits.fed()
            yield parts
