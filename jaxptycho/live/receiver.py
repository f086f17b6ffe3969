"""Receiver: a process that takes frames from a camera, and is started again where it dies."""

import multiprocessing
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .intake import Begin, End, Intake, Stop
from .ring import (
    PROCESSED,
    RECORDED,
    REFUSED,
    RING_BYTES,
    WRITTEN,
    FrameRing,
    Policy,
    frames_at_once,
)
from .sources import require_source
from .sources.address import Address
from .sources.connection import Silent

IDLE = 5e-3  # s, between two looks for frames
MAX_RESTARTS = 20
STOP_S = 10.0  # within which a process that was asked to stop has to


class Finished(NamedTuple):
    """The camera has ended; `fault` is a sentence where it failed."""

    fault: str


class Receiver:
    """The receiving process, as seen by the one that computes.

    `worker` makes the process; a thread does as well, and cannot be killed. `skipped` frames were
    not taken (policy "newest"), `restarts` counts the processes that died.
    """

    def __init__(
        self,
        address: Address,
        folder: Path,
        policy: Policy = "spill",
        given: dict[str, Any] | None = None,
        patience: float = 60.0,
        ring_bytes: int = RING_BYTES,
        worker: Callable[..., Any] = SpawnProcess,
    ):
        require_source(address)
        self.settings = address, folder, policy, given or {}, patience
        self.policy = policy
        self.worker = worker
        self.ring = FrameRing.new(ring_bytes)
        self.begun: Begin | None = None
        self.series = 0  # that have begun
        self.taken = 0  # frames of the ring
        self.skipped = 0
        self.restarts = 0
        self.paused = False  # frames wait in the ring, and on the disk
        self._start()

    def __enter__(self):
        return self

    def __exit__(self, *error: object):
        self.stop()
        self.join()
        if self.process.is_alive():  # it waits for a disk or a network that does not answer
            self.process.kill()
            self.process.join()
        self.pipe.close()
        self.ring.close(unlink=True)

    def stop(self) -> None:
        """Ask the process to end the series and to finish."""
        with suppress(OSError):
            self.pipe.send("stop")

    def join(self) -> None:
        """Wait for a process that was asked to stop."""
        self.process.join(STOP_S)

    @property
    def queued(self) -> int:
        """Frames that have come and were not taken."""
        return int(self.ring.counters[WRITTEN]) - self.taken if self.begun else 0

    @property
    def refused(self) -> int:
        """Messages that belonged to no series."""
        return int(self.ring.counters[REFUSED])

    def events(self) -> Iterator[Begin | End | np.ndarray | None]:
        """`Begin` of a series, copies of some of its records (`frames_at_once`), `End`; and again.

        None when there is nothing to do. Raises ValueError with the fault of a camera that failed,
        after the `End` of its series.
        """
        while True:
            message = self._message()
            if isinstance(message, Finished):
                if message.fault:
                    raise ValueError(message.fault)
                return
            if isinstance(message, Begin):
                self.ring.lay_out(message.series.record)
                self.begun = message
                self.series += 1
                self.taken = 0
                self.skipped = 0
                yield message
            elif isinstance(message, End):
                while len(records := self._take()):
                    yield records
                self.begun = None
                yield message
                with suppress(OSError):  # of a process that has finished
                    self.pipe.send("drained")
            elif self.begun and not self.paused and len(records := self._take()):
                yield records
            else:
                yield None
                time.sleep(IDLE)

    def _message(self):
        try:
            return self.pipe.recv() if self.pipe.poll() else None
        except (EOFError, OSError):
            self._restart()
            return None

    def _take(self) -> np.ndarray:
        """Copies of the next records."""
        assert self.begun is not None
        counters = self.ring.counters
        most = frames_at_once(self.begun.series)
        waiting = int(counters[WRITTEN]) - self.taken
        if waiting <= 0:
            return self.ring.slots[:0]
        records = self.ring.run(self.taken, min(most, waiting)).copy()
        if self.policy == "newest" and waiting > max(len(self.ring.slots) // 2, most):
            self.skipped += waiting - most
            self.taken += waiting - most
            return self._take()
        if self.ring.overwritten(self.taken):
            records = self._recorded(self.begun, most)
        self.taken += len(records)
        counters[PROCESSED] = self.taken
        return records

    def _recorded(self, begun: Begin, most: int) -> np.ndarray:
        """Records that are no longer in the ring, from the disk."""
        count = min(most, int(self.ring.counters[RECORDED]) - self.taken)
        record = begun.series.record
        start = len(begun.series.header()) + self.taken * record.itemsize
        return np.fromfile(begun.recording, record, count, offset=start)

    def _start(self) -> None:
        self.pipe, theirs = multiprocessing.Pipe()
        arguments = self.ring.memory.name, theirs, self.settings, self.series, self.begun
        self.process = self.worker(target=run_receiver, args=arguments)
        self.process.start()
        if isinstance(self.process, BaseProcess):
            theirs.close()  # its end tells that the process has died

    def _restart(self) -> None:
        self.process.join()
        self.restarts += 1
        if self.restarts > MAX_RESTARTS:
            raise ValueError(
                f"the receiver died {self.restarts} times; what has come is in {self.settings[1]}"
            )
        self.pipe.close()
        self._start()


def run_receiver(
    memory: str,
    pipe: Connection,
    settings: tuple[Address, Path, Policy, dict[str, Any], float],
    first: int,
    resumed: Begin | None,
) -> None:
    """Receive until the camera ends or the session asks to stop; the target of the process."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the session takes it, and asks to stop
    address, folder, policy, given, patience = settings
    ring = FrameRing.attached(memory)
    if resumed is not None:
        ring.lay_out(resumed.series.record)
    intake = Intake(ring, pipe, folder, policy, given, first, resumed)
    note = ""
    fault = ""
    try:
        require_source(address)(address, intake, patience)
        note = "the camera closed before the end"
    except Stop:
        note = "stopped"
    except Silent as error:
        done = intake.series is None and intake.ordinal > 0
        note = fault = "" if done else str(error)
    except (ValueError, OSError) as error:
        note = fault = str(error)
    with suppress(BrokenPipeError):
        intake.end(note)
        pipe.send(Finished(fault))
    del intake
    ring.close()
