"""Stream of a series of frames: one line of JSON, then records of equal size.

The same bytes go over a socket and are the file of a recording, which is complete at any moment.
The header is `{"format": "jaxptycho-stream", "version": 1, "series": name, "frames": number,
"shape": [y, x], "dtype": "<u2"}` with, where they are known, `"about"` (quantities as of
`io.readers.reading`, with their units in the names) and `"positions"` [frame, 2] (y, x) in Å. A
record is the number of a frame, from 0 (int64, little-endian), and its pixels as the camera shows
them. A record of number −1 ends the series; another header may follow.
"""

import json
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

FORMAT = "jaxptycho-stream"
VERSION = 1
END = -1  # number of the record that ends a series
HEADER_BYTES = 2**26  # most that a header has, with its positions
FRAME_BYTES = 2**28
KINDS = "uif"


@dataclass(frozen=True, eq=False)
class Series:
    """Frames that a camera announces under one name."""

    name: str
    frames: int
    shape: tuple[int, int]
    dtype: np.dtype
    about: dict[str, Any] = field(default_factory=dict)
    positions: np.ndarray | None = None  # Å (y, x)

    @property
    def record(self) -> np.dtype:
        """Type of a record: `number` and `pixels`."""
        return np.dtype([("number", "<i8"), ("pixels", self.dtype, self.shape)])

    def continues(self, other: "Series | None") -> bool:
        """True if frames of both belong together."""
        if other is None:
            return False
        mine, theirs = ((s.name, s.frames, s.record) for s in (self, other))
        return mine == theirs

    def header(self) -> bytes:
        """The line of JSON."""
        stated = {"format": FORMAT, "version": VERSION, "series": self.name, "frames": self.frames}
        stated |= {"shape": list(self.shape), "dtype": self.dtype.str}
        stated |= {"about": self.about} if self.about else {}
        if self.positions is not None:
            stated["positions"] = np.asarray(self.positions).tolist()
        return json.dumps(stated).encode() + b"\n"


def parse_series(line: bytes, source: object) -> Series:
    """Series of a header; ValueError in one sentence for anything else."""
    try:
        stated = json.loads(line)
        if stated["format"] != FORMAT or stated["version"] != VERSION:
            raise KeyError("format")
        y, x = stated["shape"]
        shape = (int(y), int(x))
        dtype = np.dtype(stated["dtype"])
        frames = int(stated["frames"])
        name = str(stated["series"])
    except (ValueError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{source} sent no header of a {FORMAT} version {VERSION} ({_first(line)}; "
            f"{type(error).__name__}: {error}); is it a camera of another protocol?"
        ) from None
    size = math.prod(shape) * dtype.itemsize
    if min(shape) < 1 or frames < 1 or dtype.kind not in KINDS or size > FRAME_BYTES:
        raise ValueError(
            f"{source} announces {frames} frames of {shape} pixels of type {dtype}; frames of real "
            f"numbers of at most {FRAME_BYTES >> 20} MiB are required"
        )
    positions = stated.get("positions")
    if positions is not None:
        positions = _positions(positions, frames, source)
    return Series(name, frames, shape, dtype, dict(stated.get("about", {})), positions)


def _positions(listed: Any, frames: int, source: object) -> np.ndarray:
    try:
        positions = np.asarray(listed, float)
    except (ValueError, TypeError):
        positions = np.empty(0)
    if positions.shape != (frames, 2) or not np.isfinite(positions).all():
        raise ValueError(
            f"{source} announces {frames} frames and positions of shape {positions.shape}; one "
            "(y, x) in Å is required for each frame"
        )
    return positions


def _first(line: bytes) -> str:
    return repr(line[:40]) + ("…" if len(line) > 40 else "")
