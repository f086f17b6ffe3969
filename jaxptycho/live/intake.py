"""Intake of the receiving process: sources put frames here, into the ring and onto the disk.

A thread writes the recording, so that a slow disk delays reception only once the ring is full.
"""

import os
import threading
import time
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from ..io.stream import Series
from .ring import PROCESSED, RECORDED, REFUSED, RESERVED, WRITTEN, FrameRing, Policy

BURST_BYTES = 2**22  # received at once
PAUSE = 1e-3  # s, between two looks at the counters


class Begin(NamedTuple):
    """A series begins, whose records follow in the ring and in the file `recording`."""

    series: Series
    recording: Path


class End(NamedTuple):
    """A series is over; `note` is why it ended early, empty at its regular end."""

    note: str


class Stop(Exception):
    """The receiver was asked to stop."""


class Intake:
    """Where a source puts the frames of its series.

    `given` are quantities beside those that cameras state. `resumed` continues the series of a
    receiver that was killed: (series, recording).
    """

    def __init__(
        self,
        ring: FrameRing,
        pipe: Connection,
        folder: Path,
        policy: Policy,
        given: dict[str, Any],
        first: int = 0,
        resumed: Begin | None = None,
    ):
        self.ring = ring
        self.pipe = pipe
        self.folder = folder
        self.policy = policy
        self.given = given
        self.ordinal = first
        self.series: Series | None = None
        self.waiting = False  # for the reader to take the frames of the series before
        self.failure: OSError | None = None
        self.parent = os.getppid()
        if resumed is not None:
            self.series = resumed.series
            self._open(resumed)

    def begin(self, series: Series) -> None:
        """Announce a series; frames that continue one which a lost connection left are its."""
        series = replace(series, about=series.about | self.given)
        if series.continues(self.series):
            return
        self.end("another series began")
        while self.waiting and not self._orphan():
            self.wait()
        self.ring.restart()
        self.ring.lay_out(series.record)
        begin = Begin(series, self.folder / f"series-{self.ordinal:03d}.stream")
        self.ordinal += 1
        self.series = series
        begin.recording.write_bytes(series.header())
        self._open(begin)
        self._send(begin)

    def room(self, most: int = 2**31) -> np.ndarray:
        """Free slots, at least one, for the next records; waits for them as the policy says."""
        ring = self.ring
        counters = ring.counters
        size = ring.slots.dtype.itemsize
        most = min(most, max(1, BURST_BYTES // size))
        while (free := len(ring.slots) - int(counters[WRITTEN] - self._kept())) <= 0:
            self.wait()
        run = ring.run(int(counters[WRITTEN]), min(most, free))
        counters[RESERVED] = counters[WRITTEN] + len(run)
        return run

    def commit(self, count: int) -> None:
        """Hand over the first `count` records of the slots of `room`."""
        self.ring.counters[WRITTEN] += count

    def put(self, number: int, pixels: np.ndarray) -> None:
        """Hand over one frame; ValueError for one of another shape or type than announced."""
        series = self.series
        assert series is not None
        if pixels.shape != series.shape or pixels.dtype.newbyteorder("=") != series.dtype:
            raise ValueError(
                f"frame {number} of series {series.name} has shape {pixels.shape} and type "
                f"{pixels.dtype}, and {series.shape} and {series.dtype} were announced; start a "
                "new series after a change of the camera's settings"
            )
        slot = self.room(1)
        slot["number"][0] = number
        slot["pixels"][0] = pixels
        self.commit(1)

    def refuse(self) -> None:
        """Count a message that belongs to no open series."""
        self.ring.counters[REFUSED] += 1

    def end(self, note: str = "") -> None:
        """The series is over: all of it is on the disk when this returns."""
        if self.series is None:
            return
        self.closing.set()
        self.recorder.join()
        self.series = None
        self._send(End(note))

    def wait(self) -> None:
        """Wait a moment; raises `Stop` if the session asks for it."""
        self.check()
        time.sleep(PAUSE)

    def check(self) -> None:
        """Take messages of the session; raises `Stop` if it asks for it, OSError of the disk."""
        if self.failure is not None:
            raise self.failure
        try:
            while self.pipe.poll():
                if self.pipe.recv() == "stop":
                    raise Stop
                self.waiting = False  # "drained"
        except (EOFError, OSError):
            if self.series is None:
                raise Stop from None

    def _kept(self) -> int:
        """Frames whose slots are free again."""
        counters = self.ring.counters
        if self.policy == "block" and not self._orphan():
            return int(min(counters[RECORDED], counters[PROCESSED]))
        return int(counters[RECORDED])

    def _orphan(self) -> bool:
        """True if the session has died, after which the recording goes on alone."""
        return os.getppid() != self.parent

    def _send(self, message: Any) -> None:
        if not self._orphan():
            self.pipe.send(message)

    def _open(self, begin: Begin) -> None:
        self.closing = threading.Event()
        self.waiting = True
        self.recorder = threading.Thread(target=self._record, args=(begin,), daemon=True)
        self.recorder.start()

    def _record(self, begin: Begin) -> None:
        try:
            with open(begin.recording, "r+b") as file:
                self._append(file, begin.series)
        except OSError as error:
            self.failure = error

    def _append(self, file: BinaryIO, series: Series) -> None:
        """Append records as they come to those that are in the file, until the series is over."""
        counters = self.ring.counters
        file.seek(len(series.header()) + int(counters[RECORDED]) * series.record.itemsize)
        while True:
            last = self.closing.is_set()
            done = int(counters[RECORDED])
            run = self.ring.run(done, int(counters[WRITTEN]) - done)
            if len(run):
                file.write(run.view(np.uint8).data)
                file.flush()
                counters[RECORDED] += len(run)
            elif last:
                return
            else:
                self.closing.wait(5 * PAUSE)
