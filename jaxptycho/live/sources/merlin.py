"""Merlin of Quantum Detectors: its data port, listened to while other software acquires.

Messages are `MPX,`, ten digits, `,` and as many bytes as the digits say, the comma among them:
the header of an acquisition (`HDR`), then frames as in a `.mib` file (`io.readers.mib`). Whatever
is not part of such messages, as before a trigger, is passed over and counted.
"""

import re
from typing import NamedTuple

import numpy as np

from ...io.readers.frames import Decode
from ...io.readers.mib import frame_layout, parse_hdr, parse_header
from ...io.stream import FRAME_BYTES, Series
from ..intake import Intake
from .address import Address
from .connection import Connection

PREFIX = re.compile(rb"MPX,(\d{10}),")
PREFIX_BYTES = 15
SETTINGS = slice(10, 41)  # bytes of a frame's header that a series has in common


class Layout(NamedTuple):
    """How frames of one kind are stored."""

    settings: bytes
    record: np.dtype
    decode: Decode


def receive_merlin(address: Address, intake: Intake, patience: float) -> None:
    """Hand over the acquisitions of a Merlin until it closes its port."""
    hdr: dict[str, str] = {}
    layout: Layout | None = None
    begun = 0
    with Connection(address, intake, patience) as link:
        while message := _message(link, intake):
            if message.startswith(b"HDR"):
                intake.end("the camera began another acquisition")
                hdr = parse_hdr(message.decode("latin-1"))
                layout = None
                continue
            if not message.startswith(b"MQ1,"):
                intake.refuse()
                continue
            if layout is None:
                header = parse_header(message[:1024], address, hdr)
                record, shape, decode, dtype = frame_layout(address, header)
                layout = Layout(message[SETTINGS], record, decode)
                if intake.series is None and (frames := _frames(hdr, intake)) > 0:
                    name = hdr.get("Time and Date Stamp (day, mnth, yr, hr, min, s)", "")
                    name = name or f"acquisition {begun}"
                    about = {} if header.exposure_s is None else {"exposure_s": header.exposure_s}
                    intake.begin(Series(name, frames, shape, dtype.newbyteorder("="), about))
                    begun += 1
            if intake.series is None:
                intake.refuse()
                layout = None
                continue
            _hand_over(message, layout, address, intake)


def _frames(hdr: dict[str, str], intake: Intake) -> int:
    """Number of frames of an acquisition, 0 where nothing tells it."""
    announced = int(hdr.get("Frames in Acquisition (Number)", 0) or 0)
    return announced or int(np.prod(intake.given.get("scan_shape", 0)))


def _hand_over(message: bytes, layout: Layout, address: Address, intake: Intake) -> None:
    series = intake.series
    assert series is not None
    if message[SETTINGS] != layout.settings or len(message) < layout.record.itemsize:
        raise ValueError(
            f"{address} sent a frame of {len(message)} bytes, {message[:41]!r}, in a series of "
            f"frames of {layout.record.itemsize} bytes; start a new acquisition after a change of "
            "the camera's settings"
        )
    number = int(message[4:10]) - 1
    pixels = layout.decode(np.frombuffer(message, layout.record, 1))[0]
    intake.put(number, pixels.astype(series.dtype, copy=False))
    if number == series.frames - 1:
        intake.end()


def _message(link: Connection, intake: Intake) -> bytes:
    """Next message; empty once the camera has closed."""
    prefix = link.receive(PREFIX_BYTES)
    passed = False
    while (match := PREFIX.fullmatch(prefix)) is None:
        if len(prefix) < PREFIX_BYTES:
            return b""
        if not passed:
            intake.refuse()
            passed = True
        start = prefix.find(b"M", 1)
        kept = prefix[start:] if start > 0 else b""
        prefix = kept + link.receive(PREFIX_BYTES - len(kept))
    size = int(match[1]) - 1
    if size > FRAME_BYTES:
        raise ValueError(
            f"{link.address} announces a message of {size} bytes, more than a frame has; the "
            "stream is damaged, start the acquisition again"
        )
    message = link.receive(size)
    if len(message) < size:
        raise ValueError(
            f"{link.address} closed the connection {len(message)} bytes into a message of {size}"
        )
    return message
