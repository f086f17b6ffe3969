"""Ring of frames in shared memory, between the process that receives and the one that computes.

One process writes and one reads. Counters of frames, which only grow within a series, say which
slots are whose: `RESERVED` may be under way, `WRITTEN` are complete, `RECORDED` are on the disk,
`PROCESSED` were taken by the reader.
"""

from contextlib import suppress
from multiprocessing.shared_memory import SharedMemory
from typing import Literal

import numpy as np

from ..io.stream import Series

Policy = Literal["spill", "block", "newest"]
POLICIES: tuple[Policy, ...] = ("spill", "block", "newest")
RESERVED, WRITTEN, RECORDED, PROCESSED, REFUSED = range(5)
COUNTER_BYTES = 4096
RING_BYTES = 2**28
BLOCK_BYTES = 2**22  # of frames that are processed together


def frames_at_once(series: Series) -> int:
    """Number of frames of a series that are processed together."""
    return max(1, min(series.frames, BLOCK_BYTES // series.record.itemsize))


class FrameRing:
    """Shared memory, laid out in slots for the records of one series at a time."""

    def __init__(self, memory: SharedMemory):
        self.memory = memory
        self.counters = np.ndarray(COUNTER_BYTES // 8, np.int64, memory.buf)
        self._bytes = np.ndarray(memory.size - COUNTER_BYTES, np.uint8, memory.buf, COUNTER_BYTES)
        self.slots = np.empty(0, [("number", "<i8")])

    @classmethod
    def new(cls, size: int = RING_BYTES) -> "FrameRing":
        """Ring of `size` bytes in new shared memory."""
        return cls(SharedMemory(create=True, size=COUNTER_BYTES + size))

    @classmethod
    def attached(cls, name: str) -> "FrameRing":
        """The ring of another process."""
        return cls(SharedMemory(name))

    def lay_out(self, record: np.dtype) -> None:
        """Divide the ring into slots for records; ValueError if not even two fit."""
        count = len(self._bytes) // record.itemsize
        if count < 2:
            raise ValueError(
                f"a frame has {record.itemsize} bytes, and the ring {len(self._bytes)}; give a "
                "larger one with --ring-mib"
            )
        self.slots = self._bytes[: count * record.itemsize].view(record)

    def restart(self) -> None:
        """Set the counters of frames to zero for another series."""
        self.counters[: PROCESSED + 1] = 0

    def run(self, first: int, most: int) -> np.ndarray:
        """Slots of the frames from `first` on, at most `most`, up to the end of the ring."""
        start = first % len(self.slots)
        return self.slots[start : start + most]

    def overwritten(self, first: int) -> bool:
        """True if the slot of frame `first` may hold a later one."""
        return bool(self.counters[RESERVED] > first + len(self.slots))

    def close(self, unlink: bool = False) -> None:
        """Give the memory back."""
        del self.counters, self._bytes, self.slots
        with suppress(BufferError):  # of a view that somebody kept
            self.memory.close()
        if unlink:
            self.memory.unlink()
