"""Our minimal protocol (`io.stream`) over TCP: received without a copy, as records are slots."""

import numpy as np

from ...io.stream import END, HEADER_BYTES, Series, parse_series
from ..intake import Intake
from .address import Address
from .connection import Connection

LINE_BYTES = 2**16


def receive_plain(address: Address, intake: Intake, patience: float) -> None:
    """Hand over all series that a camera sends until it closes the connection."""
    with Connection(address, intake, patience) as link:
        pending = b""
        while True:
            line, pending = _line(link, pending)
            if not line:
                return
            series = parse_series(line, address)
            intake.begin(series)
            pending = _records(link, intake, series, pending)


def _line(link: Connection, pending: bytes) -> tuple[bytes, bytes]:
    """Next line, empty at the end of the stream, and the bytes behind it."""
    while b"\n" not in pending:
        if len(pending) > LINE_BYTES and not pending.startswith(b"{"):
            break  # no header
        buffer = bytearray(LINE_BYTES)
        count = link.receive_into(memoryview(buffer))
        if count == 0 or len(pending) > HEADER_BYTES:
            return pending, b""
        pending += buffer[:count]
    line, _, rest = pending.partition(b"\n")
    return line, rest


def _records(link: Connection, intake: Intake, series: Series, pending: bytes) -> bytes:
    """Hand over the records of a series; returns the bytes that came behind it."""
    size = series.record.itemsize
    partial = 0  # bytes of the first slot that have come
    while True:
        slots = intake.room()
        view = slots.view(np.uint8).data
        if pending:
            count = min(len(pending), len(view) - partial)
            view[partial : partial + count] = pending[:count]
            pending = pending[count:]
        else:
            count = link.receive_into(view[partial:])
        if count == 0:
            cut = f", {partial} bytes into a frame" if partial else ""
            raise ValueError(
                f"{link.address} closed the connection before the end of series {series.name}{cut}"
            )
        complete, partial = divmod(partial + count, size)
        numbers = slots["number"][:complete]
        wrong = np.flatnonzero((numbers < 0) | (numbers >= series.frames))
        if not len(wrong):
            intake.commit(complete)
            continue
        first = int(wrong[0])
        last = int(numbers[first])
        behind = bytes(view[(first + 1) * size : complete * size + partial]) + pending
        intake.commit(first)
        if last != END:
            raise ValueError(
                f"{link.address} sent a frame {last} in a series of {series.frames}; the stream is "
                "damaged, or its frames have another size than announced"
            )
        intake.end()
        return behind
