"""Data port of a Merlin (`live.sources.merlin`)."""

from datetime import UTC, datetime

import numpy as np

from ...io.stream import Series
from .transport import TcpTransport

HEADER_BYTES = 384
TYPES = {1: ("U08", 6), 2: ("U16", 12), 4: ("U32", 24)}  # by bytes of a pixel: type, counter depth


class Merlin(TcpTransport):
    """Camera that sends `MPX` messages."""

    def begin(self, series: Series) -> None:
        stamp = f"{datetime.now(UTC):%d/%m/%Y %H:%M:%S.%f}"
        lines = [
            "HDR,",
            f"Time and Date Stamp (day, mnth, yr, hr, min, s):\t{stamp}",
            f"Frames in Acquisition (Number):\t{series.frames}",
            f"Frames per Trigger (Number):\t{series.frames}",
            f"Counter Depth (number):\t{self._type(series)[1]}",
            "End\t",
        ]
        if self.listener.connected():
            self.listener.fresh = False
            self.listener.send(_message("\n".join(lines).encode()))

    def send(self, series: Series, numbers: np.ndarray, frames: np.ndarray) -> int:
        if not self.listener.connected():
            return 0
        kind = series.dtype.newbyteorder(">")
        sent = 0
        for number, frame in zip(numbers, frames, strict=True):
            rows = np.ascontiguousarray(frame[::-1], kind).tobytes()
            sent += self.listener.send(_message(self._header(series, int(number)) + rows))
        return sent

    def end(self, series: Series) -> None:
        return None

    def _type(self, series: Series) -> tuple[str, int]:
        if series.dtype.kind != "u" or series.dtype.itemsize not in TYPES:
            raise ValueError(
                f"a Merlin counts in 8, 16 or 32 bits, and the patterns are of type "
                f"{series.dtype}; choose --protocol plain"
            )
        return TYPES[series.dtype.itemsize]

    def _header(self, series: Series, number: int) -> bytes:
        name, depth = self._type(series)
        y, x = series.shape
        text = (
            f"MQ1,{number + 1:06d},{HEADER_BYTES:05d},01,{x:04d},{y:04d},{name},   1x1,01,"
            f"2026-01-01 00:00:00.000000,0.001000,0,0,0,MQ1A,2026-01-01T00:00:00.000000000Z,"
            f"1000000ns,{depth},"
        )
        return text.encode().ljust(HEADER_BYTES, b"\0")


def _message(payload: bytes) -> bytes:
    return b"MPX,%010d," % (len(payload) + 1) + payload
